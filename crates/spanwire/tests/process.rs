//! The client in processes that end, stop, fork and panic: each case is a process of its own.
//!
//! Run without arguments, this program is the test: it starts itself once for each case and judges
//! how that process ended and what the collector got from it.

#![expect(unsafe_code, reason = "a fork is a call of the C library")]
#![expect(clippy::print_stdout, reason = "a test program of its own reports there")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use spanwire::{BatchConfig, Client, Diagnostics, Overflow, Protocol};
use spanwire_codec::view::Request;
use spanwire_receiver::{Accepted, Received, Receiver};

const ENDPOINT: &str = "SPANWIRE_TEST_ENDPOINT";
const LONG: Duration = Duration::from_secs(30);

/// What a case does in its process, and what is then to be seen from outside.
struct Case {
    name: &'static str,
    run: fn(),
    judge: fn(Child, &Collector),
}

const CASES: &[Case] = &[
    // Faults 130.
    Case {
        name: "a_client_dropped_at_the_end_of_main_delivers_everything",
        run: drop_in_main,
        judge: |child, collector| {
            assert_eq!(wait(child), Some(0));
            assert_eq!(collector.spans(), 1_000);
        },
    },
    // Faults 130.
    Case {
        name: "an_exit_without_shutdown_neither_hangs_nor_crashes",
        run: exit,
        judge: |child, collector| {
            assert_eq!(wait(child), Some(7));
            assert!(collector.spans() <= 1_000);
        },
    },
    // Faults 130.
    Case {
        name: "an_abort_does_not_hang",
        run: abort,
        judge: |child, _| assert_eq!(wait(child), None),
    },
    // Faults 130.
    Case {
        name: "a_client_in_a_static_is_left_alone_when_main_returns",
        run: in_a_static,
        judge: |child, collector| {
            assert_eq!(wait(child), Some(0));
            assert!(collector.spans() <= 1_000);
        },
    },
    // Faults 135.
    Case {
        name: "spans_and_clients_in_thread_locals_end_without_a_crash",
        run: in_thread_locals,
        judge: |child, collector| {
            assert_eq!(wait(child), Some(0));
            assert_eq!(collector.spans(), 2);
        },
    },
    // Faults 131.
    Case {
        name: "a_flush_from_a_panic_hook_delivers_what_ended_before",
        run: in_a_panic_hook,
        judge: |child, collector| {
            assert_eq!(wait(child), Some(101));
            assert_eq!(collector.spans(), 1_000);
        },
    },
    // Faults 133.
    Case {
        name: "a_fork_sends_nothing_of_its_parent_s_and_may_have_a_client_of_its_own",
        run: fork,
        judge: |child, collector| {
            assert_eq!(wait(child), Some(0));
            assert_eq!((collector.named("parent"), collector.named("child")), (1_000, 10));
            assert_eq!(
                collector.spans(),
                1_010,
                "each once, and nothing of the inherited client's"
            );
            assert_eq!(collector.ids(), 1_010, "no id twice");
        },
    },
    // Faults 136.
    Case {
        name: "a_process_stopped_for_a_while_goes_on_and_loses_nothing",
        run: until_told,
        judge: |mut child, collector| {
            let signal = |name: &str| {
                let status = Command::new("kill").arg(name).arg(child.id().to_string()).status();
                assert!(status.expect("kill is there").success());
            };
            collector.wait_for(1);
            signal("-STOP");
            std::thread::sleep(Duration::from_secs(2));
            signal("-CONT");
            drop(child.stdin.take());
            let recorded = BufReader::new(child.stdout.take().expect("piped")).lines().next();
            let recorded: usize =
                recorded.expect("a line").expect("UTF-8").parse().expect("a number");
            assert_eq!(wait(child), Some(0));
            assert_eq!(collector.spans(), recorded);
        },
    },
    // Faults 140.
    Case {
        name: "a_disabled_client_starts_no_thread_and_opens_no_socket",
        run: disabled,
        judge: |child, collector| {
            assert_eq!(wait(child), Some(0));
            assert_eq!(collector.spans(), 0);
        },
    },
];

fn client() -> Client {
    let endpoint = std::env::var(ENDPOINT).expect("set by the test");
    let batch = BatchConfig {
        age_max: Duration::from_millis(20),
        overflow: Overflow::Block { timeout: LONG },
        ..BatchConfig::default()
    };
    Client::builder()
        .environment(false)
        .diagnostics(Diagnostics::off())
        .detect_resource(false)
        .protocol(Protocol::Grpc)
        .endpoint(endpoint)
        .batch(batch)
        .build()
        .expect("valid")
}

fn record(client: &Client, name: &str, spans: usize) {
    let tracer = client.tracer("process");
    (0..spans).for_each(|_| tracer.start(name).end());
}

fn drop_in_main() {
    record(&client(), "span", 1_000);
}

fn exit() {
    let client = client();
    record(&client, "span", 1_000);
    std::process::exit(7);
}

fn abort() {
    let client = client();
    record(&client, "span", 1_000);
    std::process::abort();
}

fn in_a_static() {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    record(CLIENT.get_or_init(client), "span", 1_000);
}

fn in_thread_locals() {
    /// Ends last of all that its thread has.
    struct Last(Option<(Client, spanwire::Span)>);
    impl Drop for Last {
        fn drop(&mut self) {
            if let Some((client, span)) = self.0.take() {
                span.end();
                client.tracer("process").start("in a destructor").end();
                assert!(client.flush_blocking(LONG).complete);
            }
        }
    }
    thread_local!(static LAST: std::cell::RefCell<Last> = const { std::cell::RefCell::new(Last(None)) });
    let thread = std::thread::spawn(|| {
        LAST.with_borrow_mut(|last| {
            let client = client();
            let span = client.tracer("process").start("open until the end");
            last.0 = Some((client, span));
        });
    });
    thread.join().expect("no panic");
}

fn in_a_panic_hook() {
    let client = client();
    record(&client, "span", 1_000);
    std::panic::set_hook(Box::new(move |_| assert!(client.flush_blocking(LONG).complete)));
    panic!("the application's own");
}

fn fork() {
    let client = client();
    let tracer = client.tracer("process");
    let open = tracer.start("parent");
    record(&client, "parent", 998);
    // SAFETY: the child goes on with the one thread it has, and uses of this process only what is
    // made for it.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let before = Instant::now();
        record(&client, "of the inherited client", 10_000);
        assert!(!client.flush_blocking(LONG).complete);
        assert!(!client.shutdown_blocking(LONG).complete);
        assert_eq!(client.stats().started, 0);
        drop(client);
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
        let own = self::client();
        record(&own, "child", 10);
        let delivered = own.shutdown_blocking(LONG).exported == 10;
        std::process::exit(if delivered { 0 } else { 1 });
    }
    drop(open);
    record(&client, "parent", 1);
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child's own judgement");
    assert!(client.shutdown_blocking(LONG).complete);
}

fn until_told() {
    let client = client();
    let told = std::thread::spawn(|| std::io::stdin().read_line(&mut String::new()));
    let mut spans = 0;
    while !told.is_finished() {
        record(&client, "span", 10);
        spans += 10;
    }
    assert_eq!(client.shutdown_blocking(LONG).dropped, 0);
    println!("{spans}");
}

fn disabled() {
    let config = spanwire::Config { disabled: true, ..spanwire::Config::default() };
    let client = Client::new(config).expect("valid");
    record(&client, "span", 1_000);
    assert!(client.flush_blocking(LONG).complete && client.shutdown_blocking(LONG).complete);
    let of = |folder| std::fs::read_dir(folder).map_or(1, Iterator::count);
    if cfg!(target_os = "linux") {
        assert_eq!(of("/proc/self/task"), 1, "threads");
        let sockets = std::fs::read_dir("/proc/self/fd").expect("Linux").filter(|fd| {
            let target = fd.as_ref().map(|fd| std::fs::read_link(fd.path()));
            target
                .is_ok_and(|target| target.is_ok_and(|to| to.to_string_lossy().contains("socket")))
        });
        assert_eq!(sockets.count(), 0);
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let filter = arguments.next().unwrap_or_default();
    if std::env::var_os(ENDPOINT).is_some() {
        let case = CASES.iter().find(|case| case.name == filter).expect("a case");
        (case.run)();
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--list") {
        CASES.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let mut failed = false;
    for case in CASES.iter().filter(|case| case.name.contains(&filter)) {
        let judged = std::panic::catch_unwind(|| {
            let collector = Collector::start();
            let child = Command::new(std::env::current_exe().expect("running"))
                .arg(case.name)
                .env(ENDPOINT, &collector.endpoint)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn();
            (case.judge)(child.expect("this very program"), &collector);
        });
        println!("test {} ... {}", case.name, if judged.is_ok() { "ok" } else { "FAILED" });
        failed |= judged.is_err();
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The exit code, or none where a signal ended it; a process that hangs is ended by one.
fn wait(mut child: Child) -> Option<i32> {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().expect("our child");
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Name and id of a span.
type Arrived = (String, [u8; 8]);

struct Collector {
    endpoint: String,
    spans: Arc<Mutex<Vec<Arrived>>>,
    _runtime: tokio::runtime::Runtime,
    _receiver: Receiver,
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let spans: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = Arc::clone(&spans);
        let sink = move |received: Received| {
            let request = Request::parse(&received.request).expect("the receiver checked it");
            let mut kept = kept.lock().expect("no panic");
            for scope in request.resource_spans().flat_map(|resource| resource.scope_spans()) {
                kept.extend(scope.spans().map(|span| {
                    (
                        String::from_utf8_lossy(span.name()).into_owned(),
                        span.span_id().expect("checked"),
                    )
                }));
            }
            std::future::ready(Ok(Accepted::default()))
        };
        let localhost = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let receiver = runtime.block_on(Receiver::builder().grpc(localhost).bind(sink));
        let receiver = receiver.expect("a free port");
        let endpoint = format!("http://{}", receiver.grpc_address().expect("bound"));
        Self { endpoint, spans, _runtime: runtime, _receiver: receiver }
    }

    fn spans(&self) -> usize {
        self.spans.lock().expect("no panic").len()
    }

    fn named(&self, name: &str) -> usize {
        self.spans.lock().expect("no panic").iter().filter(|(named, _)| named == name).count()
    }

    fn ids(&self) -> usize {
        let spans = self.spans.lock().expect("no panic");
        spans.iter().map(|(_, id)| id).collect::<std::collections::HashSet<_>>().len()
    }

    fn wait_for(&self, spans: usize) {
        let deadline = Instant::now() + LONG;
        while self.spans() < spans {
            assert!(Instant::now() < deadline, "nothing arrives");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
