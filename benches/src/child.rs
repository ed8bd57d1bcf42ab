//! This binary run once more, as another process that talks in lines.

use std::env;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use crate::process::otel_variables;

/// A child process. It is told to end, by the end of its input, when this is dropped.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Runs this binary with these arguments.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn spawn(arguments: &[&str]) -> io::Result<Self> {
        let mut process =
            this_binary()?.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let piped = process.stdin.take().zip(process.stdout.take());
        let (questions, answers) = piped.ok_or_else(|| io::Error::other("pipes were asked for"))?;
        Ok(Self { process, questions: Some(questions), answers: BufReader::new(answers) })
    }

    /// Says a line and waits for the one it answers with.
    ///
    /// # Errors
    ///
    /// When the child is gone.
    pub fn ask(&mut self, question: &str) -> io::Result<String> {
        if let Some(questions) = &mut self.questions {
            writeln!(questions, "{question}")?;
        }
        self.answer()
    }

    /// Waits for a line that it says by itself.
    ///
    /// # Errors
    ///
    /// When the child is gone.
    pub fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(io::Error::other("the child is gone")),
            _ => Ok(line),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.questions = None;
        // One that is gone already is no matter.
        let _gone = self.process.wait();
    }
}

/// A command that runs this binary, with nothing in the environment that would configure a client.
///
/// # Errors
///
/// When the system does not tell where the binary is.
pub fn this_binary() -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    for name in otel_variables() {
        command.env_remove(name);
    }
    Ok(command)
}
