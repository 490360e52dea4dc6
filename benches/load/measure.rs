//! The measurements, one file per kind of promise, and the one that most of them begin with: a saturated
//! flow.

pub(crate) mod datagram;
pub(crate) mod fair;
pub(crate) mod host;
pub(crate) mod rate;
pub(crate) mod rtt;
pub(crate) mod scale;
pub(crate) mod vde;
mod versus;

use std::fmt;

use clap::ValueEnum;

use crate::device::{Device, Kind, Setup};
use crate::lab::Lab;
use crate::process::{Client, go};
use crate::report::{Report, Samples};
use crate::socket::Transport;
use crate::tracer::Tracer;

// The stations of every measurement.
const RECEIVER: u16 = 1;
const OTHER: u16 = 2;
const NOBODY: u16 = 3;
const SENDER: u16 = 16;

const RUNS: usize = 5;
const SECONDS: f64 = 0.6;

/// VDE's switch cuts off what is longer than a frame of the usual size, and hosts send nothing longer.
const LARGEST: usize = 1514;

// Processors for those that are not to move.
const DEVICE_CPU: usize = 0;
const CLIENT_CPU: usize = 1;

/// Where the processes of a flow run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Placement {
    /// Where the system puts them, which is another place in every run.
    Free,
    /// All on one core: there only the time that they need counts.
    OneCore,
}

impl Placement {
    fn cpu(self) -> Option<usize> {
        match self {
            Self::Free => None,
            Self::OneCore => Some(CLIENT_CPU),
        }
    }
}

/// A device, and the transports of the sender's and the receiver's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    kind: Kind,
    transports: [Transport; 2],
}

impl From<Row> for Kind {
    fn from(row: Row) -> Self {
        row.kind
    }
}

const fn row(kind: Kind, from: Transport, to: Transport) -> Row {
    Row { kind, transports: [from, to] }
}

/// How a saturating sender sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    /// Of the sender, and of the receiver.
    transports: [Transport; 2],
    size: usize,
    /// Frames per write.
    batch: usize,
    placement: Placement,
}

impl Shape {
    fn setup(self, ports: usize) -> Setup {
        Setup { transports: self.transports, ports, duplex: false, cpu: self.placement.cpu() }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = self.transports;
        write!(f, "{from}")?;
        if from != to {
            write!(f, " to {to}")?;
        }
        write!(f, " {} x {}", self.size, self.batch)?;
        match self.placement {
            Placement::Free => Ok(()),
            Placement::OneCore => write!(f, ", one core"),
        }
    }
}

/// What a saturating sender got through to one receiver.
struct OneWay {
    /// Delivered frames per second.
    rate: f64,
    sent: f64,
    delivered: f64,
    lost: f64,
    /// Those of them that came as far as the receiver's own buffer and found no room there, if it knows.
    missed: f64,
    /// Out of order, or not the bytes that were sent.
    wrong: f64,
    /// Processor time of the device, in seconds.
    cpu: f64,
    /// System calls of the device, if they were counted.
    calls: Option<f64>,
}

/// What the runs of one device came to.
#[derive(Default)]
struct Column {
    rate: Samples,
    nanoseconds: Samples,
    lost: Samples,
    /// In percent of what was sent.
    missed: Samples,
    wrong: Samples,
}

impl Column {
    /// Adds a run; `lost` says in what its losses are counted.
    fn push(&mut self, run: Option<&OneWay>, lost: fn(&OneWay) -> f64) {
        let value = |of: fn(&OneWay) -> f64| run.map_or(f64::NAN, of);
        self.rate.push(value(|run| run.rate));
        self.nanoseconds.push(value(|run| run.cpu / run.delivered * 1e9));
        self.lost.push(value(lost));
        self.missed.push(value(|run| run.missed / run.sent * 1e2));
        self.wrong.push(value(|run| run.wrong));
    }
}

/// Makes a run and notes its failure. QEMU gets a second chance: what is measured is its speed, and it
/// crashes once in a few hundred starts (see `device.rs`).
fn attempt<T>(
    report: &mut Report,
    what: &str,
    kind: Kind,
    mut run: impl FnMut() -> anyhow::Result<T>,
) -> Option<T> {
    let result = run();
    let again = kind == Kind::Qemu && result.is_err();
    report.attempt(what, if again { run() } else { result })
}

fn one_way(
    lab: &Lab,
    device: &Device,
    shape: Shape,
    seconds: f64,
    count_calls: bool,
) -> anyhow::Result<OneWay> {
    let Shape { size, batch, .. } = shape;
    let cpu = shape.placement.cpu();
    let receive = format!("receive --host {RECEIVER} --size {size}");
    let mut send =
        format!("send --from {SENDER} --to {RECEIVER} --size {size} --batch {batch} --seconds {seconds}");
    if device.carries_datagrams() {
        send += &format!(" --greet {RECEIVER}");
    }
    // The relay carries from its first port to its second.
    let mut sender = Client::start(&send, Some(device.port(0)), cpu)?;
    let mut receiver = Client::start(&receive, Some(device.port(1)), cpu)?;
    let tracer = if count_calls { Some(Tracer::attach(lab, device)?) } else { None };
    let before = device.cpu_time()?;
    go([&mut receiver, &mut sender])?;
    let sent = sender.seen()?;
    let seen = receiver.seen()?;
    let cpu = device.cpu_time()? - before;
    let calls = tracer.map(Tracer::calls).transpose()?.map(|calls| calls as f64);
    let delivered = seen.frames(SENDER);
    Ok(OneWay {
        rate: seen.value("rate"),
        sent: sent.frames(RECEIVER),
        delivered,
        lost: sent.frames(RECEIVER) - delivered,
        missed: seen.value("missed"),
        wrong: seen.value("reordered") + seen.value("corrupt"),
        cpu: cpu.as_secs_f64(),
        calls,
    })
}

/// A device, and one saturated flow through it.
fn fresh_one_way(
    lab: &Lab,
    kind: Kind,
    shape: Shape,
    seconds: f64,
    count_calls: bool,
) -> anyhow::Result<OneWay> {
    let device = Device::start(lab, kind, shape.setup(2))?;
    device.blame(one_way(lab, &device, shape, seconds, count_calls))
}
