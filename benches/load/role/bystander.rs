//! Those that a measurement needs beside its sender and receiver: a slow reader, idle ports, and a clock that
//! shows how long the machine itself keeps a process from running.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{join, ready, report, stay, stopped};
use crate::channel::Channel;
use crate::frame::{Host, READ_SIZE};
use crate::socket::Address;

/// First station of the idle ports; the measured ones have lower numbers.
const FIRST_IDLE: u16 = 1000;

#[derive(clap::Args)]
pub(crate) struct SlowArgs {
    #[arg(long)]
    address: Address,
    #[arg(long)]
    host: u16,
    /// Bits per second that are read, a little every millisecond; `0` never reads.
    #[arg(long)]
    bits: u128,
}

#[derive(clap::Args)]
pub(crate) struct IdleArgs {
    #[arg(long)]
    address: Address,
    #[arg(long)]
    ports: u16,
}

pub(crate) fn slow(args: &SlowArgs) -> anyhow::Result<()> {
    let channel = join(&args.address, Host(args.host))?;
    let mut socket = channel.socket();
    ready()?;
    socket.set_nonblocking(true)?;
    let started = Instant::now();
    let mut buffer = vec![0; READ_SIZE];
    let mut taken = 0;
    while !stopped(PollTimeout::from(1_u8))? {
        let due = usize::try_from(args.bits * started.elapsed().as_micros() / 8_000_000)?;
        let want = buffer.len().min(due - taken);
        if want > 0 {
            match socket.read(&mut buffer[..want]) {
                Ok(got) => taken += got,
                // What was not there cannot be caught up with later: a slow reader has no memory of its idle
                // time.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => taken = due,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

pub(crate) fn idle(args: &IdleArgs) -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let hosts = (FIRST_IDLE..).take(usize::from(args.ports)).map(Host);
    let _ports: Vec<Channel> = hosts.map(|host| join(&args.address, host)).collect::<Result<_, _>>()?;
    ready()?;
    Ok(stay()?)
}

/// Sleeps a millisecond at a time and reports the longest that it was kept from going on.
pub(crate) fn tick() -> anyhow::Result<()> {
    let tick = Duration::from_millis(1);
    ready()?;
    let mut longest = Duration::ZERO;
    let mut before = Instant::now();
    while !stopped(PollTimeout::from(1_u8))? {
        let now = Instant::now();
        longest = longest.max((now - before).saturating_sub(tick));
        before = now;
    }
    report([("gap".to_owned(), longest.as_secs_f64())])
}
