//! Counts the system calls of a device.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ChildStderr, Stdio};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::device::Device;
use crate::lab::Lab;
use crate::process::{Process, exec};

/// `strace` on a device, which it slows down.
pub(crate) struct Tracer {
    process: Process,
    /// Kept open, because a pipe without a reader would end `strace` before it has written its summary.
    _stderr: BufReader<ChildStderr>,
    output: PathBuf,
}

impl Tracer {
    pub(crate) fn attach(lab: &Lab, device: &Device) -> anyhow::Result<Self> {
        let output = lab.file();
        let mut command = exec(None, "strace")?;
        command.args(["-f", "-c", "-p", &device.pid()?.to_string(), "-o"]).arg(&output);
        let mut process = Process(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?);
        let mut stderr = BufReader::new(process.0.stderr.take().context("standard error is a pipe")?);
        let mut said = String::new();
        stderr.read_line(&mut said)?;
        ensure!(said.contains("attached"), "strace: {}", said.trim());
        Ok(Self { process, _stderr: stderr, output })
    }

    /// Calls since it was attached.
    pub(crate) fn calls(mut self) -> anyhow::Result<u64> {
        kill(Pid::from_raw(self.process.0.id().try_into()?), Signal::SIGINT)?;
        self.process.0.wait()?;
        let summary = fs::read_to_string(&self.output)?;
        // "% time  seconds  usecs/call  calls  [errors]  syscall"
        let total = summary.lines().find(|line| line.ends_with("total")).context("strace counted nothing")?;
        Ok(total.split_whitespace().nth(3).context("no count of calls")?.parse()?)
    }
}
