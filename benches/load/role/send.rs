//! Sends numbered frames to one or more stations, as fast as they are taken or at a given rate.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use super::{SIGNAL_SIZE, conclude, join, ready, report};
use crate::channel::Channel;
use crate::frame::{Flow, Frame, Host, Kind, READ_SIZE, encode};
use crate::socket::{Address, PATIENCE};

/// Frames between two looks at the clock.
const FRAMES_PER_LOOK: usize = 64;

/// How long an answer may take before it is asked for again.
const ANSWER: Duration = Duration::from_millis(20);

/// Sleep between two bursts of a paced sender.
const TICK: Duration = Duration::from_millis(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    address: Address,
    #[arg(long)]
    from: u16,
    /// Stations that are sent to in turn.
    #[arg(long, value_delimiter = ',', required = true)]
    to: Vec<u16>,
    #[arg(long)]
    size: usize,
    /// Frames per write.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    #[arg(long)]
    seconds: f64,
    /// Frames per second; without, as many as are taken.
    #[arg(long)]
    rate: Option<u128>,
    /// Give every frame a source address of its own.
    #[arg(long)]
    spoof: bool,
    /// Read and forget what arrives.
    #[arg(long)]
    drain: bool,
    /// Begin when these stations have answered: what is sent to a port that is not there yet would be lost.
    #[arg(long, value_delimiter = ',')]
    greet: Vec<u16>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut channel = join(&args.address, Host(args.from))?;
    let flow = |&to| Flow::new(Host(args.from), Host(to), args.size);
    let mut flows: Vec<Flow> = args.to.iter().map(flow).collect();
    if args.spoof {
        flows = flows.into_iter().map(Flow::disguised).collect();
    }
    if args.drain {
        let socket = channel.socket().try_clone()?;
        thread::spawn(move || drain(&socket));
    }
    ready()?;
    if !args.greet.is_empty() {
        greet(&mut channel, args)?;
        channel.leave_bus(&args.address)?;
    }

    let span = Duration::from_secs_f64(args.seconds);
    match args.rate {
        None => saturate(&mut channel, &mut flows, args.batch, span)?,
        Some(rate) => pace(&mut channel, &mut flows, args.batch, rate, span)?,
    }
    report(args.to.iter().zip(&flows).map(|(to, flow)| (format!("frames.{to}"), flow.sent() as f64)))?;
    conclude(&mut channel, Host(args.from), &args.to)
}

/// Asks each station again and again until it answers.
fn greet(channel: &mut Channel, args: &Args) -> anyhow::Result<()> {
    let from = Host(args.from);
    channel.set_patience(ANSWER)?;
    let mut silent: BTreeSet<Host> = args.greet.iter().copied().map(Host).collect();
    let started = Instant::now();
    while !silent.is_empty() {
        ensure!(started.elapsed() < PATIENCE, "nobody answers");
        for &to in &silent {
            channel.send(&encode(Kind::Ping, from, to, 0, SIGNAL_SIZE))?;
        }
        let received = channel.receive(|bytes| {
            if let Some(frame) = Frame::parse(bytes, from.mac()) {
                silent.remove(&frame.from());
            }
        });
        match received {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn saturate(channel: &mut Channel, flows: &mut [Flow], batch: usize, span: Duration) -> io::Result<()> {
    let until = Instant::now() + span;
    while Instant::now() < until {
        for _ in 0..FRAMES_PER_LOOK.div_ceil(batch) {
            for flow in &mut *flows {
                channel.send(flow.next(batch))?;
            }
        }
    }
    Ok(())
}

/// Sends what is due at every tick. What a stall delayed is made up for as far as the time goes.
fn pace(
    channel: &mut Channel,
    flows: &mut [Flow],
    batch: usize,
    rate: u128,
    span: Duration,
) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let elapsed = started.elapsed();
        if elapsed >= span {
            return Ok(());
        }
        let due = u64::try_from(rate * elapsed.as_micros() / 1_000_000)?;
        for flow in &mut *flows {
            while let missing @ 1.. = due.saturating_sub(flow.sent()) {
                channel.send(flow.next(batch.min(usize::try_from(missing)?)))?;
            }
        }
        thread::sleep(TICK);
    }
}

/// Waits in `poll`, because a thread that waits in `read` is woken each time that the device takes something
/// from us.
fn drain(mut socket: &Socket) {
    let mut buffer = vec![0; READ_SIZE];
    let socket_ready =
        || poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).is_ok();
    while socket_ready() && socket.read(&mut buffer).is_ok_and(|got| got > 0) {}
}
