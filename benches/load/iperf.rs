//! A transfer over TCP between the stacks of two hosts, by `iperf3`.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use anyhow::{Context, bail};

use crate::hosts::{Host, Hosts};
use crate::process::{Process, client, exec};

pub(crate) const IPERF: &str = "iperf3";

/// Which of two hosts sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forth,
    Back,
}

/// What the receiver got.
pub(crate) struct Transfer {
    pub(crate) bits_per_second: f64,
    pub(crate) bytes: f64,
    /// Segments that the sender sent again.
    pub(crate) retransmits: f64,
}

/// As much as comes through in that time, of which `iperf3` knows whole seconds only.
pub(crate) fn transfer(hosts: &Hosts, direction: Direction, seconds: f64) -> anyhow::Result<Transfer> {
    let [one, other] = hosts.ends() else { bail!("two hosts are wanted") };
    let _server = serve(other)?;
    let mut command = client(IPERF)?;
    command.args(["--client", &other.tap.ip.to_string(), "--time", &seconds.ceil().to_string()]);
    command.args(["--json", "--connect-timeout", "5000"]);
    command.args((direction == Direction::Back).then_some("--reverse"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut client = Process(one.namespace.within(|| Ok(command.spawn()?))?);
    let mut said = String::new();
    client.0.stdout.take().context("standard output is a pipe")?.read_to_string(&mut said)?;
    let value = |sum: &str, key: &str| {
        number(&said, &["end", sum, key]).with_context(|| {
            let complaint = said.lines().find(|line| line.contains("\"error\""));
            format!("iperf3 ended too early: {}", complaint.map_or("without a word", str::trim))
        })
    };
    Ok(Transfer {
        bits_per_second: value("sum_received", "bits_per_second")?,
        bytes: value("sum_received", "bytes")?,
        retransmits: value("sum_sent", "retransmits")?,
    })
}

/// Starts a server for one transfer, and returns when it listens.
fn serve(host: &Host) -> anyhow::Result<Process> {
    let mut command = exec(None, IPERF)?;
    command.args(["--server", "--one-off", "--forceflush"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = Process(host.namespace.within(|| Ok(command.spawn()?))?);
    let stdout = BufReader::new(server.0.stdout.take().context("standard output is a pipe")?);
    for line in stdout.lines() {
        if line?.contains("listening") {
            return Ok(server);
        }
    }
    bail!("iperf3 ended before it listened")
}

/// The number that follows these keys, in this order, in a text of JSON.
fn number(text: &str, keys: &[&str]) -> Option<f64> {
    let rest = keys.iter().try_fold(text, |rest, key| Some(rest.split_once(&format!("\"{key}\":"))?.1))?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}
