//! Receives and verifies: every byte, the order, and how long nothing came. Answers pings.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::{join, ready, report, stay};
use crate::frame::{Frame, Host, Kind, encode};
use crate::raw;
use crate::socket::Address;

/// A port that is silent for so long will not hear the end of its flows either.
const SILENCE: Duration = Duration::from_millis(1500);

/// A longer gap between two reads that found something counts as a stall.
const STALL: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    address: Address,
    /// Our own station.
    #[arg(long)]
    host: u16,
    /// Size of the data frames.
    #[arg(long)]
    size: usize,
    /// Flows to wait for the end of.
    #[arg(long, default_value_t = 1)]
    flows: usize,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let host = Host(args.host);
    let mut channel = join(&args.address, host)?;
    channel.set_patience(SILENCE)?;
    ready()?;

    let mut seen = Seen::default();
    let mut pongs = Vec::new();
    while seen.ended.len() < args.flows {
        let before = seen.frames;
        let received = channel.receive(|bytes| {
            let Some(frame) = Frame::parse(bytes, host.mac()) else {
                return;
            };
            match frame.kind {
                Kind::Data => seen.note(frame, args.size),
                Kind::Last => seen.ended.extend([frame.from()]),
                Kind::Ping => {
                    pongs.extend(encode(Kind::Pong, host, frame.from(), frame.sequence(), bytes.len()))
                }
                Kind::Hello | Kind::Pong => {}
            }
        });
        match received {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                seen.arrived(0, Instant::now());
                break;
            }
            Err(error) => return Err(error.into()),
        }
        if seen.frames > before {
            seen.arrived(seen.frames - before, Instant::now());
        }
        if !pongs.is_empty() {
            channel.send(&pongs)?;
            pongs.clear();
        }
    }
    let mut summary = seen.summary();
    if args.address.tap().is_some() {
        summary.push(("missed".to_owned(), raw::packets_dropped(channel.socket())? as f64));
    }
    report(summary)?;
    Ok(stay()?)
}

/// What arrived so far.
#[derive(Default)]
struct Seen {
    flows: BTreeMap<Host, Progress>,
    frames: u64,
    reordered: u64,
    corrupt: u64,
    ended: BTreeSet<Host>,
    clock: Option<Clock>,
}

#[derive(Default)]
struct Progress {
    frames: u64,
    /// Sequence number of the frame that follows the newest one.
    next: u64,
}

struct Clock {
    first: Instant,
    last: Instant,
    /// Frames of the first read: they arrived before the time that is measured.
    head: u64,
    /// How long the port was silent in the end, if it has not heard the end of its flows.
    silence: Duration,
    longest_gap: Duration,
    stalled: Duration,
}

impl Seen {
    fn note(&mut self, frame: Frame<'_>, size: usize) {
        let progress = self.flows.entry(frame.from()).or_default();
        let sequence = frame.sequence();
        if sequence < progress.next {
            self.reordered += 1;
        } else {
            progress.next = sequence + 1;
        }
        progress.frames += 1;
        self.frames += 1;
        self.corrupt += u64::from(!frame.is_intact(size));
    }

    /// One read brought frames, or (`0`) a silence has ended the measurement.
    fn arrived(&mut self, frames: u64, now: Instant) {
        let Some(clock) = &mut self.clock else {
            let [silence, longest_gap, stalled] = [Duration::ZERO; 3];
            self.clock = Some(Clock { first: now, last: now, head: frames, silence, longest_gap, stalled });
            return;
        };
        let gap = now - clock.last;
        clock.longest_gap = clock.longest_gap.max(gap);
        if gap > STALL {
            clock.stalled += gap;
        }
        if frames > 0 {
            clock.last = now;
        } else {
            clock.silence = gap;
        }
    }

    fn summary(&self) -> Vec<(String, f64)> {
        let count = |name: &str, value: u64| (name.to_owned(), value as f64);
        let mut values: Vec<_> =
            self.flows.iter().map(|(host, flow)| count(&format!("frames.{}", host.0), flow.frames)).collect();
        values.extend([count("reordered", self.reordered), count("corrupt", self.corrupt)]);
        if let Some(clock) = &self.clock {
            let seconds = (clock.last - clock.first).as_secs_f64();
            values.extend([
                ("rate".to_owned(), (self.frames - clock.head) as f64 / seconds),
                ("gap".to_owned(), clock.longest_gap.as_secs_f64()),
                ("stalled".to_owned(), clock.stalled.as_secs_f64() / (seconds + clock.silence.as_secs_f64())),
            ]);
        }
        values
    }
}
