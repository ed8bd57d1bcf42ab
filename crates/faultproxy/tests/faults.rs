//! Each fault, as plain sockets on both sides see it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use spanwire_faultproxy::{Direction, Fault, FaultProxy, Plan, Stats};

/// Longer than anything here takes; reached only by a test that fails.
const LONG: Duration = Duration::from_secs(10);

/// Long enough for a byte to pass, were it allowed to.
const MOMENT: Duration = Duration::from_millis(100);

/// What the server read from one connection, and how it ended there.
type Seen = (Vec<u8>, Result<(), ErrorKind>);

/// A server that sends back what it gets and reports each connection when it has ended.
fn echo_server() -> (SocketAddr, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (report, reports) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, report) = (stream.expect("accepted"), report.clone());
            thread::spawn(move || {
                // Nobody listens once its test is over.
                let _unheard = report.send(echo(stream));
            });
        }
    });
    (address, reports)
}

fn echo(mut stream: TcpStream) -> Seen {
    let mut seen = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                return (seen, Ok(()));
            }
            Ok(len) => {
                seen.extend_from_slice(&buffer[..len]);
                if let Err(error) = stream.write_all(&buffer[..len]) {
                    return (seen, Err(error.kind()));
                }
            }
            Err(error) => return (seen, Err(error.kind())),
        }
    }
}

fn proxied(plan: Plan) -> (FaultProxy, Receiver<Seen>) {
    let (address, reports) = echo_server();
    let proxy = FaultProxy::start(address).expect("a free port");
    proxy.set(plan);
    (proxy, reports)
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("the proxy listens");
    stream.set_read_timeout(Some(LONG)).expect("a duration above zero");
    stream
}

/// Everything up to the end, and how it ended.
fn read_to_end(stream: &mut TcpStream) -> Seen {
    let mut received = Vec::new();
    let ended = stream.read_to_end(&mut received);
    (received, ended.map(drop).map_err(|error| error.kind()))
}

fn read(stream: &mut TcpStream, len: usize) -> io::Result<Vec<u8>> {
    let mut received = vec![0; len];
    stream.read_exact(&mut received)?;
    Ok(received)
}

/// Nothing comes, and no end either.
fn assert_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(MOMENT)).expect("a duration above zero");
    let error = stream.read(&mut [0; 16]).expect_err("silence");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(Some(LONG)).expect("a duration above zero");
}

fn assert_reset(stream: &mut TcpStream) {
    assert_eq!(read_to_end(stream), (Vec::new(), Err(ErrorKind::ConnectionReset)));
}

fn await_stats(proxy: &FaultProxy, test: impl Fn(Stats) -> bool) -> Stats {
    let deadline = Instant::now() + LONG;
    loop {
        let stats = proxy.stats();
        if test(stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_healthy_proxy_passes_every_byte_and_both_ends() {
    let (proxy, reports) = proxied(Plan::healthy());
    let sent: Vec<u8> = (0..3_000_000).map(|n: u32| (n % 251) as u8).collect();
    let mut client = connect(&proxy);
    let mut writer = client.try_clone().expect("a handle");
    let sending = sent.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&sending).expect("sent");
        writer.shutdown(Shutdown::Write).expect("ended");
    });
    let (received, ended) = read_to_end(&mut client);
    sender.join().expect("no panic");
    assert!(received == sent && ended.is_ok(), "{} bytes, {ended:?}", received.len());
    assert_eq!(reports.recv_timeout(LONG).expect("a report").1, Ok(()));

    let stats = await_stats(&proxy, |stats| stats.connections_open == 0);
    let bytes = sent.len() as u64;
    assert_eq!((stats.connections, stats.bytes_up, stats.bytes_down), (1, bytes, bytes));
    assert_eq!((stats.faults(), stats.unreachable), (0, 0));
}

#[test]
fn a_refused_client_is_reset_at_once_and_the_server_never_sees_it() {
    let (proxy, reports) = proxied(Plan::refuse());
    assert_reset(&mut connect(&proxy));
    assert!(reports.recv_timeout(MOMENT).is_err());
    assert_eq!(proxy.stats().refusals, 1);
}

#[test]
fn refusing_resets_the_connections_that_are_open() {
    let (proxy, reports) = proxied(Plan::healthy());
    let mut client = connect(&proxy);
    client.write_all(b"hello").expect("sent");
    assert_eq!(read(&mut client, 5).expect("an echo"), b"hello");
    proxy.set(Plan::refuse());
    assert_reset(&mut client);
    assert_eq!(
        reports.recv_timeout(LONG),
        Ok((b"hello".to_vec(), Err(ErrorKind::ConnectionReset)))
    );
    assert_eq!(proxy.stats().refusals, 1);
}

#[test]
fn a_client_of_a_server_that_is_not_there_is_reset() {
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
    let proxy = FaultProxy::start(gone).expect("a free port");
    assert_reset(&mut connect(&proxy));
    assert_eq!((proxy.stats().unreachable, proxy.stats().faults()), (1, 0));
}

#[test]
fn a_reset_lets_exactly_its_bytes_pass_and_reaches_both_sides() {
    let (proxy, reports) = proxied(Plan::healthy().fault(Direction::Up, 5, Fault::Reset));
    let mut client = connect(&proxy);
    client.write_all(b"hello").expect("sent");
    assert_eq!(read(&mut client, 5).expect("an echo"), b"hello");
    client.write_all(b"!").expect("sent");
    assert_reset(&mut client);
    assert_eq!(
        reports.recv_timeout(LONG),
        Ok((b"hello".to_vec(), Err(ErrorKind::ConnectionReset)))
    );
    assert_eq!((proxy.stats().resets, proxy.stats().bytes_up), (1, 5));

    let (proxy, reports) = proxied(Plan::healthy().fault(Direction::Down, 0, Fault::Reset));
    let mut client = connect(&proxy);
    client.write_all(b"hello").expect("sent");
    assert_reset(&mut client);
    // The request had been read in full, the answer has not arrived.
    let (seen, ended) = reports.recv_timeout(LONG).expect("a report");
    assert_eq!((seen.as_slice(), ended), (&b"hello"[..], Err(ErrorKind::ConnectionReset)));
    assert_eq!((proxy.stats().resets, proxy.stats().bytes_down), (1, 0));
}

#[test]
fn a_close_truncates_the_answer_and_ends_it_in_order() {
    let (proxy, reports) = proxied(Plan::healthy().fault(Direction::Down, 3, Fault::Close));
    let mut client = connect(&proxy);
    client.write_all(b"hello").expect("sent");
    assert_eq!(read_to_end(&mut client), (b"hel".to_vec(), Ok(())));
    drop(client);
    assert_eq!(reports.recv_timeout(LONG), Ok((b"hello".to_vec(), Ok(()))));
    assert_eq!(await_stats(&proxy, |stats| stats.connections_open == 0).closes, 1);
}

#[test]
fn a_half_close_ends_one_direction_and_leaves_the_other() {
    let (proxy, reports) = proxied(Plan::healthy().fault(Direction::Down, 3, Fault::HalfClose));
    let mut client = connect(&proxy);
    client.write_all(b"hello").expect("sent");
    assert_eq!(read_to_end(&mut client), (b"hel".to_vec(), Ok(())));
    client.write_all(b" again").expect("the way up is open");
    drop(client);
    assert_eq!(reports.recv_timeout(LONG), Ok((b"hello again".to_vec(), Ok(()))));
    let stats = await_stats(&proxy, |stats| stats.connections_open == 0);
    assert_eq!((stats.half_closes, stats.bytes_up, stats.bytes_down), (1, 11, 3));
}

#[test]
fn a_swallowed_request_is_read_and_never_answered() {
    let (proxy, reports) = proxied(Plan::healthy().fault(Direction::Up, 2, Fault::Swallow));
    let mut client = connect(&proxy);
    // Far more than buffers hold: all of it is read.
    client.set_write_timeout(Some(LONG)).expect("a duration above zero");
    client.write_all(&vec![7; 64 << 20]).expect("sent");
    assert_eq!(read(&mut client, 2).expect("an echo"), [7, 7]);
    assert_silent(&mut client);
    // Its bytes are gone, so that no later plan can let it go on.
    proxy.set(Plan::healthy());
    client.write_all(b"more").expect("sent");
    assert_silent(&mut client);
    assert_eq!((proxy.stats().swallows, proxy.stats().bytes_up), (1, 2));
    drop(proxy);
    assert_eq!(reports.recv_timeout(LONG).expect("a report").0, [7, 7]);
}

#[test]
fn a_stalled_direction_is_not_read_and_goes_on_unharmed_under_a_later_plan() {
    let (proxy, _reports) = proxied(Plan::healthy().fault(Direction::Up, 2, Fault::Stall));
    let sent: Vec<u8> = (0..64 << 20).map(|n: u32| (n % 251) as u8).collect();
    let mut client = connect(&proxy);
    client.set_write_timeout(Some(MOMENT)).expect("a duration above zero");
    let mut written = 0;
    // Ends because the buffers fill up: the time limit strikes.
    while let Ok(len) = client.write(&sent[written..]) {
        written += len;
        assert!(written < sent.len(), "somebody read it all");
    }
    assert_eq!(read(&mut client, 2).expect("an echo"), sent[..2]);
    assert_silent(&mut client);
    assert_eq!((proxy.stats().stalls, proxy.stats().bytes_up), (1, 2));

    proxy.set(Plan::healthy());
    let received = read(&mut client, written - 2).expect("the rest");
    assert!(received == sent[2..written], "not what was sent");
}

#[test]
fn a_stalled_direction_passes_on_not_even_a_reset() {
    let (proxy, reports) = proxied(Plan::healthy().fault(Direction::Up, 5, Fault::Stall));
    let mut client = connect(&proxy);
    client.write_all(b"hello again").expect("sent");
    await_stats(&proxy, |stats| stats.stalls == 1 && stats.bytes_down == 5);
    // Closed with an echo unread, a socket sends a reset.
    drop(client);
    assert!(reports.recv_timeout(MOMENT).is_err());
    assert_eq!(proxy.stats().connections_open, 1);
}

#[test]
fn latency_delays_each_way_and_jitter_never_reorders() {
    let latency = Duration::from_millis(60);
    let (proxy, _reports) = proxied(Plan::healthy().latency(latency).jitter(latency));
    let mut client = connect(&proxy);
    let start = Instant::now();
    let sent: Vec<u8> = (0..100).collect();
    for byte in &sent {
        client.write_all(&[*byte]).expect("sent");
    }
    assert_eq!(read(&mut client, 1).expect("an echo"), [0]);
    assert!(start.elapsed() >= 2 * latency, "{:?}", start.elapsed());
    assert_eq!(read(&mut client, 99).expect("an echo"), sent[1..]);
    assert!(start.elapsed() < LONG);
}

#[test]
fn a_rate_holds_back_what_is_over_it_in_its_direction_alone() {
    let (proxy, _reports) = proxied(Plan::healthy().rate(Direction::Up, 100_000));
    let mut client = connect(&proxy);
    let start = Instant::now();
    client.write_all(&[7; 50_000]).expect("sent");
    read(&mut client, 50_000).expect("an echo");
    // Half a second's worth, less what may pass at once.
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    assert!(start.elapsed() < LONG);
}

#[test]
fn a_plan_set_later_strikes_open_connections_from_where_they_stand() {
    let (proxy, _reports) = proxied(Plan::healthy());
    let mut client = connect(&proxy);
    client.write_all(b"hello").expect("sent");
    assert_eq!(read(&mut client, 5).expect("an echo"), b"hello");
    proxy.set(Plan::healthy().fault(Direction::Down, 2, Fault::Close));
    client.write_all(b"again").expect("sent");
    assert_eq!(read_to_end(&mut client), (b"ag".to_vec(), Ok(())));
}

#[test]
fn dropping_the_proxy_ends_every_connection_and_frees_its_port() {
    let (proxy, reports) = proxied(Plan::healthy().fault(Direction::Down, 0, Fault::Stall));
    let address = proxy.address();
    let mut clients: Vec<TcpStream> = (0..4).map(|_| connect(&proxy)).collect();
    for client in &mut clients {
        client.write_all(b"hello").expect("sent");
    }
    await_stats(&proxy, |stats| stats.stalls == 4);
    drop(proxy);
    for client in &mut clients {
        assert_eq!(read_to_end(client).0, b"");
        assert_eq!(reports.recv_timeout(LONG).expect("a report").0, b"hello");
    }
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_seed_repeats_its_run() {
    let run = |seed| {
        let plan = Plan::seeded(seed);
        let (proxy, _reports) = proxied(plan.clone());
        let outcomes: Vec<_> = (0..20)
            .map(|number| {
                let mut client = connect(&proxy);
                // A few are silent, and each of them takes so long.
                client.set_read_timeout(Some(5 * MOMENT)).expect("a duration above zero");
                let sent = client.write_all(&[7; 300]).and_then(|()| read(&mut client, 300));
                (plan.drawn(number), sent.map_err(drop))
            })
            .collect();
        let stats = proxy.stats();
        let faults = [stats.refusals, stats.resets, stats.closes, stats.half_closes];
        (outcomes, faults, stats.stalls + stats.swallows)
    };
    let first = run(3);
    assert_eq!(first, run(3));
    assert!(first.0.iter().any(|(_, outcome)| outcome.is_ok()));
    assert!(first.0.iter().any(|(_, outcome)| outcome.is_err()));
    assert_ne!(first.0, run(4).0);
}

#[test]
fn a_proxy_can_be_started_and_dropped_within_a_runtime() {
    let (address, _reports) = echo_server();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let proxy = FaultProxy::start(address).expect("a free port");
        let mut client = connect(&proxy);
        client.write_all(b"hello").expect("sent");
        assert_eq!(read(&mut client, 5).expect("an echo"), b"hello");
    });
}
