//! The processes of a measurement, as the orchestrator sees them. Each ends when its value is dropped, and
//! when the orchestrator itself is killed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, ensure};

use crate::socket::Address;

/// Time for a device to take note of who has joined.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);

/// A child that ends with its value.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after `wait`.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that runs a role of this benchmark in a process of its own.
pub(crate) fn role(cpu: Option<usize>) -> anyhow::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("role");
    if let Some(cpu) = cpu {
        command.args(["--cpu", &cpu.to_string()]);
    }
    Ok(command)
}

/// A command that runs another program, which then ends with us.
pub(crate) fn exec(cpu: Option<usize>, program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
    let mut command = role(cpu)?;
    command.args(["exec", "--"]).arg(program);
    Ok(command)
}

/// A command that runs another program, which hangs no longer than a client.
pub(crate) fn client(program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
    let mut command = role(None)?;
    command.args(["exec", "--client", "--"]).arg(program);
    Ok(command)
}

/// A process that sends, receives or stands by, and the orchestrator's two pipes to it.
pub(crate) struct Client {
    /// Closed, it ends the process.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    what: String,
    _process: Process,
}

/// What a role reported.
#[derive(Default)]
pub(crate) struct Seen(BTreeMap<String, f64>);

impl Seen {
    /// `NaN` for what it has not seen.
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(f64::NAN)
    }

    /// Frames that it has sent to a station, or received from one.
    pub(crate) fn frames(&self, station: u16) -> f64 {
        self.0.get(&format!("frames.{station}")).copied().unwrap_or(0.0)
    }
}

impl Client {
    /// Starts a role and waits until it has joined. `line` is its command line, without the address.
    pub(crate) fn start(line: &str, address: Option<&Address>, cpu: Option<usize>) -> anyhow::Result<Self> {
        let mut command = role(cpu)?;
        command.args(line.split_whitespace());
        if let Some(address) = address {
            command.args(["--address", &address.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("standard output is a pipe")?);
        let mut client = Self { stdin, stdout, what: line.to_owned(), _process: Process(child) };
        ensure!(client.line()? == "ready", "`{line}` is not ready");
        Ok(client)
    }

    fn go(&mut self) -> anyhow::Result<()> {
        self.stdin.as_mut().context("has been stopped")?.write_all(b"go\n")?;
        Ok(())
    }

    /// Ends a role that works until it is told.
    pub(crate) fn stop(&mut self) {
        self.stdin = None;
    }

    /// Waits for the report of a role.
    pub(crate) fn seen(&mut self) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        loop {
            let line = self.line()?;
            if line == "end" {
                return Ok(seen);
            }
            let (name, value) = line.split_once(' ').with_context(|| format!("`{line}` is no report"))?;
            seen.0.insert(name.to_owned(), value.parse()?);
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let got = self.stdout.read_line(&mut line)?;
        ensure!(got > 0, "`{}` ended without a word", self.what);
        Ok(line.trim_end().to_owned())
    }
}

/// Lets all of them begin: receivers first, so list them first.
pub(crate) fn go<'a>(clients: impl IntoIterator<Item = &'a mut Client>) -> anyhow::Result<()> {
    thread::sleep(SETTLE);
    clients.into_iter().try_for_each(Client::go)
}
