// Receives spans with @elastic/mockotlpserver and prints them once standard input ends.
//
//     sink.js grpc|http
//
// The first line is the port.
'use strict';

const { MockOtlpServer } = require('@elastic/mockotlpserver');

const { documents } = require('./documents');
const spans = require('./spans');

async function main(service) {
  const requests = [];
  const server = new MockOtlpServer({
    logLevel: 'error',
    services: [service],
    httpHostname: '127.0.0.1',
    httpPort: 0,
    grpcHostname: '127.0.0.1',
    grpcPort: 0,
    onTrace: (request) => requests.push(request),
  });
  await server.start();
  const { url } = service === 'grpc' ? server._grpcService : server._httpService;
  spans.write([Number(url.port)]);
  process.stdin.resume().on('end', () => {
    spans.write(requests.flatMap(documents), () => process.exit());
  });
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
