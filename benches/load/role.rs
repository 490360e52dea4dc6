//! The processes of a measurement: one binary, started once per role.
//!
//! A role connects, says `ready`, and begins at the word `go`, so that all of them are there when the first
//! frame is sent. It then works for a given time or until its standard input ends, prints what it saw as
//! `name value` lines and `end`, and keeps its connections open until its standard input has ended: a port
//! that goes away in the middle of a measurement would be another measurement.

mod bystander;
mod ping;
mod pump;
mod receive;
mod relay;
mod repeat;
mod send;

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::{prctl, signal::Signal};
use nix::unistd::{Pid, alarm};

use crate::channel::Channel;
use crate::frame::{Host, Kind, encode};
use crate::process::SETTLE;
use crate::socket::{Address, PATIENCE};

/// Seconds after which the system ends a client that hangs because a device does not take its frames. Devices
/// live as long as their run.
const LIFETIME: u32 = 40;

/// Size of the frames that carry nothing but their kind.
const SIGNAL_SIZE: usize = 64;

#[derive(Parser)]
pub(crate) struct Cli {
    /// Run on this processor only.
    #[arg(long)]
    cpu: Option<usize>,

    #[command(subcommand)]
    role: Role,
}

#[derive(Parser)]
enum Role {
    /// Become another program, pinned and tied to the life of the benchmark.
    Exec {
        /// It is no device: it is not to live longer than a client.
        #[arg(long)]
        client: bool,
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    Relay(relay::Args),
    Send(send::Args),
    Receive(receive::Args),
    Ping(ping::Args),
    Slow(bystander::SlowArgs),
    Idle(bystander::IdleArgs),
    Tick,
}

pub(crate) fn run(cli: &Cli) -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if let Some(cpu) = cli.cpu {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("run on processor {cpu}"))?;
    }
    if !matches!(cli.role, Role::Exec { client: false, .. } | Role::Relay(_)) {
        alarm::set(LIFETIME);
    }
    match &cli.role {
        Role::Exec { command, .. } => exec(command),
        Role::Relay(args) => relay::run(args),
        Role::Send(args) => send::run(args),
        Role::Receive(args) => receive::run(args),
        Role::Ping(args) => ping::run(args),
        Role::Slow(args) => bystander::slow(args),
        Role::Idle(args) => bystander::idle(args),
        Role::Tick => bystander::tick(),
    }
}

fn exec(command: &[OsString]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("start {}", program.display()))
}

/// Connects a station and makes it known.
fn join(address: &Address, host: Host) -> anyhow::Result<Channel> {
    let mut channel = Channel::open(address)?;
    let hello = encode(Kind::Hello, host, host, 0, SIGNAL_SIZE);
    channel.send(&hello)?;
    if address.is_datagram() {
        // A datagram port begins with its first frame. UDP says only afterwards that nobody was there yet.
        let started = Instant::now();
        thread::sleep(SETTLE);
        while let Some(error) = channel.socket().take_error()? {
            ensure!(started.elapsed() < PATIENCE, "join {address}: {error}");
            channel.send(&hello)?;
            thread::sleep(SETTLE);
        }
    }
    Ok(channel)
}

/// Tells the orchestrator that this role is there, and waits for its word.
fn ready() -> anyhow::Result<()> {
    println!("ready");
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Sleeps, and says whether the orchestrator has ended this role meanwhile.
fn stopped(within: PollTimeout) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, within)? > 0)
}

/// Says what was seen.
fn report(values: impl IntoIterator<Item = (String, f64)>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for (name, value) in values {
        writeln!(out, "{name} {value}")?;
    }
    writeln!(out, "end")?;
    Ok(())
}

/// Says that all has been sent, again and again because a device that is full may drop it, until the
/// orchestrator has heard everybody.
fn conclude(channel: &mut Channel, from: Host, to: &[u16]) -> anyhow::Result<()> {
    while !stopped(PollTimeout::from(1_u8))? {
        for &to in to {
            channel.send(&encode(Kind::Last, from, Host(to), 0, SIGNAL_SIZE))?;
        }
    }
    Ok(())
}

/// Stays until the orchestrator has heard everybody.
fn stay() -> io::Result<()> {
    stopped(PollTimeout::NONE).map(drop)
}
