//! Sends numbered frames to one or more stations, as fast as they are taken or at a given rate.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use super::{conclude, join, ready, report};
use crate::frame::{Flow, Host, READ_SIZE};
use crate::socket::Address;

/// Frames between two looks at the clock.
const FRAMES_PER_LOOK: usize = 64;

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
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut socket = join(&args.address, Host(args.from))?;
    let flow = |&to| Flow::new(Host(args.from), Host(to), args.size);
    let mut flows: Vec<Flow> = args.to.iter().map(flow).collect();
    if args.spoof {
        flows = flows.into_iter().map(Flow::disguised).collect();
    }
    if args.drain {
        let socket = socket.try_clone()?;
        thread::spawn(move || drain(&socket));
    }
    ready()?;

    let span = Duration::from_secs_f64(args.seconds);
    match args.rate {
        None => saturate(&mut socket, &mut flows, args.batch, span)?,
        Some(rate) => pace(&mut socket, &mut flows, args.batch, rate, span)?,
    }
    report(args.to.iter().zip(&flows).map(|(to, flow)| (format!("frames.{to}"), flow.sent() as f64)))?;
    conclude(&socket, Host(args.from), &args.to)
}

fn saturate(socket: &mut Socket, flows: &mut [Flow], batch: usize, span: Duration) -> io::Result<()> {
    let until = Instant::now() + span;
    while Instant::now() < until {
        for _ in 0..FRAMES_PER_LOOK.div_ceil(batch) {
            for flow in &mut *flows {
                socket.write_all(flow.next(batch))?;
            }
        }
    }
    Ok(())
}

/// Sends what is due at every tick. What a stall delayed is made up for as far as the time goes.
fn pace(
    socket: &mut Socket,
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
                socket.write_all(flow.next(batch.min(usize::try_from(missing)?)))?;
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
