//! The binary as people run it.

use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A running collector that ends with its test.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// What it said of each address that it listens on.
    addresses: Vec<(String, SocketAddr)>,
    said: Arc<Mutex<Vec<String>>>,
}

/// What a process is still to say.
pub(crate) type Log = Lines<BufReader<ChildStderr>>;

/// The binary with these arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanwire-collector"));
    command.args(arguments);
    command
}

impl Process {
    /// Starts one with this configuration, and waits until it listens for each of `parts`.
    pub(crate) fn start(yaml: &str, parts: &[&str]) -> Self {
        let mut command = command(&["--config", &format!("yaml:{yaml}")]);
        command.stdout(Stdio::null());
        Self::run(command, parts)
    }

    /// The same by a command.
    pub(crate) fn run(command: Command, parts: &[&str]) -> Self {
        let (process, log) = Self::unread(command, parts);
        let said = Arc::clone(&process.said);
        // It must be able to go on writing.
        thread::spawn(move || {
            log.map_while(Result::ok).for_each(|line| said.lock().expect("no panic").push(line));
        });
        process
    }

    /// The same, and what it says from then on is left to the test.
    pub(crate) fn unread(mut command: Command, parts: &[&str]) -> (Self, Log) {
        let child = command.stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut process = Self::of(child);
        let mut log = BufReader::new(process.child.stderr.take().expect("piped")).lines();
        while parts.iter().any(|part| process.find(part).is_none()) {
            let Some(line) = log.next() else { panic!("it ended: {:?}", process.said) };
            let line = line.expect("text");
            if let Some((_, address)) = line.split_once("listening on ") {
                let address = address.split(' ').next().expect("one").parse();
                process.addresses.push((line.clone(), address.expect("an address")));
            }
            process.said.lock().expect("no panic").push(line);
        }
        (process, log)
    }

    /// One that was started, and of which nothing is read.
    pub(crate) fn of(child: Child) -> Self {
        Self { child, addresses: Vec::new(), said: Arc::default() }
    }

    fn find(&self, part: &str) -> Option<SocketAddr> {
        let found = self.addresses.iter().find(|(line, _)| line.contains(part));
        found.map(|(_, address)| *address)
    }

    pub(crate) fn address(&self, part: &str) -> SocketAddr {
        self.find(part).unwrap_or_else(|| panic!("{part} in {:?}", self.addresses))
    }

    /// How many lines with this text it has said.
    pub(crate) fn has_said(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// What it has said.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.said.lock().expect("no panic").clone()
    }

    pub(crate) fn get(&self, part: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address(part)).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for its end, for twice as long as a shutdown may take.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(since.elapsed() < Duration::from_secs(60), "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, where the test went well.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
