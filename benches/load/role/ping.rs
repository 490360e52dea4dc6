//! Sends one frame at a time and takes the time until its answer is there.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{conclude, join, ready, report};
use crate::channel::Channel;
use crate::frame::{Frame, Host, Kind, encode};
use crate::socket::Address;

/// A ping without an answer for so long is lost.
const LOST: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(1);

const SIZE: usize = 64;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    address: Address,
    #[arg(long)]
    from: u16,
    #[arg(long)]
    to: u16,
    #[arg(long)]
    seconds: f64,
    /// Wait a millisecond between an answer and the next ping.
    #[arg(long)]
    pause: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (from, to) = (Host(args.from), Host(args.to));
    let mut channel = join(&args.address, from)?;
    channel.set_patience(LOST)?;
    ready()?;

    let mut times = Vec::new();
    let mut lost = 0_u64;
    let span = Duration::from_secs_f64(args.seconds);
    let started = Instant::now();
    for sequence in 0.. {
        if args.pause {
            pause(&mut channel)?;
        }
        let sent = Instant::now();
        if sent - started >= span {
            break;
        }
        channel.send(&encode(Kind::Ping, from, to, sequence, SIZE))?;
        let mut answered = false;
        // Other frames may go on arriving, so that the time-out of the socket is not enough.
        while !answered && sent.elapsed() < LOST {
            let received = channel.receive(|bytes| {
                answered |= Frame::parse(bytes, from.mac()).is_some_and(|frame| {
                    frame.kind == Kind::Pong && frame.sequence() == sequence && frame.is_intact(SIZE)
                });
            });
            match received {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if answered {
            times.push(sent.elapsed());
        } else {
            lost += 1;
        }
    }

    times.sort_unstable();
    let per_mille = |n: usize| times.get(times.len() * n / 1000).map_or(f64::NAN, Duration::as_secs_f64);
    let named = |(name, value): (&str, f64)| (name.to_owned(), value);
    report(
        [
            ("pings", times.len() as f64),
            ("lost", lost as f64),
            ("p50", per_mille(500)),
            ("p99", per_mille(990)),
            ("longest", times.last().map_or(f64::NAN, Duration::as_secs_f64)),
        ]
        .map(named),
    )?;
    conclude(&mut channel, from, &[args.to])
}

/// Goes on reading, as a guest would, so that a flood does not pile up in front of the next answer.
fn pause(channel: &mut Channel) -> anyhow::Result<()> {
    let until = Instant::now() + PAUSE;
    while Instant::now() < until {
        let mut fds = [PollFd::new(channel.socket().as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::try_from(PAUSE)?)? > 0 {
            channel.receive(|_| ())?;
        }
    }
    Ok(())
}
