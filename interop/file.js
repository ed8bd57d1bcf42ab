// Prints the spans of a file of OTLP/JSON, a request a line.
//
//     file.js PATH
'use strict';

const { readFileSync } = require('node:fs');

const { documents } = require('./documents');
const spans = require('./spans');

const lines = readFileSync(process.argv[2], 'utf8').split('\n');
// Each line ends, the last one too.
if (lines.pop() !== '') throw new Error('the last line is torn');
spans.write(lines.flatMap((line) => documents(JSON.parse(line))));
