//! What ports that do not keep up cost the others, and how senders share a port.

use super::{OTHER, Placement, RECEIVER, RUNS, SECONDS, SENDER, Shape};
use crate::Plan;
use crate::device::{Device, Kind};
use crate::lab::Lab;
use crate::process::{Client, go};
use crate::report::{Measured, Report, Samples, Table, Target, down, up};
use crate::socket::Transport;

/// Long enough for what a slow port may cost per second to show beside what it costs once.
const SLOW_SECONDS: f64 = 3.0;

const SIZE: usize = 1514;

const SENDERS: u16 = 4;

/// What sits at the port beside the one that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbour {
    /// Reads all that there is: what the machine can do.
    Fast,
    /// Reads so many Mbit/s.
    Slow(u32),
}

impl std::fmt::Display for Neighbour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fast => write!(f, "reads all"),
            Self::Slow(0) => write!(f, "never reads"),
            Self::Slow(mbit) => write!(f, "reads {mbit} Mbit/s"),
        }
    }
}

const NEIGHBOURS: [Neighbour; 5] =
    [Neighbour::Fast, Neighbour::Slow(0), Neighbour::Slow(2), Neighbour::Slow(10), Neighbour::Slow(50)];

/// What the measured port saw of a sender that wrote to it and to its neighbour in turn.
struct Beside {
    /// Longest time without a frame, in seconds.
    gap: f64,
    /// Longest time that the machine did not run a process that only sleeps, in seconds.
    machine: f64,
    /// Fraction of the time that went by in gaps over 20 ms.
    stalled: f64,
    rate: f64,
    lost: f64,
}

pub(crate) fn run(lab: &Lab, plan: &Plan, report: &mut Report) {
    slow_neighbours(lab, plan, report);
    many_senders(lab, plan, report);
}

fn slow_neighbours(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&[
        "flow",
        "device",
        "neighbour",
        "longest gap ms",
        "min .. max",
        "machine's own ms",
        "stalled %",
        "min .. max",
        "kframes/s",
        "lost",
    ]);
    for &transport in &plan.transport {
        let kinds: &[Kind] =
            if transport == Transport::Unix { &[Kind::Switch, Kind::Hub] } else { &[Kind::Switch] };
        for kind in plan.rounds(1, kinds) {
            let shape =
                Shape { transports: [transport; 2], size: SIZE, batch: 1, placement: Placement::Free };
            for neighbour in NEIGHBOURS {
                eprintln!("fair: {shape} {kind}, neighbour {neighbour}");
                let [mut gap, mut machine, mut stalled, mut rate, mut lost] = <[Samples; 5]>::default();
                for _ in 0..plan.runs(RUNS) {
                    let run = beside(lab, kind, shape, neighbour, plan.seconds(SLOW_SECONDS));
                    let run = report.attempt(&format!("fair {shape} {kind} {neighbour}"), run);
                    let value = |of: fn(&Beside) -> f64| run.as_ref().map_or(f64::NAN, of);
                    gap.push(value(|run| run.gap * 1e3));
                    machine.push(value(|run| run.machine * 1e3));
                    stalled.push(value(|run| run.stalled * 1e2));
                    rate.push(value(|run| run.rate / 1e3));
                    lost.push(value(|run| run.lost));
                }
                table.row([
                    shape.to_string(),
                    kind.to_string(),
                    neighbour.to_string(),
                    up(gap.median(), 1),
                    format!("{} .. {}", up(gap.min(), 1), up(gap.max(), 1)),
                    up(machine.max(), 1),
                    up(stalled.median(), 2),
                    format!("{} .. {}", up(stalled.min(), 2), up(stalled.max(), 2)),
                    down(rate.median(), 1),
                    up(lost.sum(), 0),
                ]);
                if let Neighbour::Slow(_) = neighbour {
                    let what = |what: &str| format!("{kind}: {what}, neighbour {neighbour}, {shape}");
                    report.check(what("longest gap in ms"), Target::NeverOver(60.0), gap.measured());
                    report.check(what("stalled %"), Target::AtMost(6.0), stalled.measured());
                }
            }
        }
    }
    Report::section(
        "Slow and stuck ports",
        "One sender writes single frames in turn to two ports, as fast as it is let. This is what one of \
         them sees, depending on how its neighbour reads. The machine's own gap is the longest that a \
         process that sleeps a millisecond at a time was kept from running, in the worst of the same runs.",
        &table,
    );
}

fn beside(lab: &Lab, kind: Kind, shape: Shape, neighbour: Neighbour, seconds: f64) -> anyhow::Result<Beside> {
    let device = Device::start(lab, kind, shape.setup(3))?;
    let start = |line: &str, port| device.blame(Client::start(line, Some(device.port(port)), None));
    let mut receiver = start(&format!("receive --host {RECEIVER} --size {SIZE}"), 0)?;
    let mut neighbour = match neighbour {
        Neighbour::Fast => start(&format!("receive --host {OTHER} --size {SIZE}"), 1)?,
        Neighbour::Slow(mbit) => start(&format!("slow --host {OTHER} --bits {mbit}000000"), 1)?,
    };
    let send = format!("send --from {SENDER} --to {RECEIVER},{OTHER} --size {SIZE} --seconds {seconds}");
    let mut sender = start(&send, 2)?;
    let mut tick = Client::start("tick", None, None)?;
    go([&mut receiver, &mut neighbour, &mut tick, &mut sender])?;
    let sent = device.blame(sender.seen())?;
    let seen = device.blame(receiver.seen())?;
    tick.stop();
    Ok(Beside {
        gap: seen.value("gap"),
        machine: tick.seen()?.value("gap"),
        stalled: seen.value("stalled"),
        rate: seen.value("rate"),
        lost: sent.frames(RECEIVER) - seen.frames(SENDER),
    })
}

fn many_senders(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&["flow", "Jain's index", "min .. max", "kframes/s in all", "lost"]);
    for &transport in &plan.transport {
        for &batch in &plan.batch {
            let shape = Shape { transports: [transport; 2], size: SIZE, batch, placement: Placement::Free };
            eprintln!("many senders: {shape}");
            let [mut jain, mut rate, mut lost] = <[Samples; 3]>::default();
            for _ in 0..plan.runs(RUNS) {
                let run = share(lab, shape, plan.seconds(SECONDS));
                let run = report.attempt(&format!("many senders {shape}"), run);
                let [a, b, c] = run.unwrap_or([f64::NAN; 3]);
                jain.push(a);
                rate.push(b);
                lost.push(c);
            }
            let Measured { median, min, max } = jain.measured();
            table.row([
                shape.to_string(),
                down(median, 4),
                format!("{} .. {}", down(min, 4), down(max, 4)),
                down(rate.median() / 1e3, 1),
                up(lost.sum(), 0),
            ]);
            report.check(
                format!("{}: Jain's index of {SENDERS} senders, {shape}", Kind::Switch),
                Target::Above(0.95),
                jain.measured(),
            );
            report.check(
                format!("{}: frames lost of {SENDERS} senders, {shape}", Kind::Switch),
                Target::NeverOver(0.0),
                lost.measured(),
            );
        }
    }
    Report::section(
        "Many senders, one port",
        "Four saturating senders to one receiver, through the switch.",
        &table,
    );
}

/// Jain's index, frames per second in all, and frames lost.
fn share(lab: &Lab, shape: Shape, seconds: f64) -> anyhow::Result<[f64; 3]> {
    let Shape { size, batch, .. } = shape;
    let device = Device::start(lab, Kind::Switch, shape.setup(5))?;
    let start = |line: &str| device.blame(Client::start(line, Some(device.port(0)), None));
    let receive = format!("receive --host {RECEIVER} --size {size} --flows {SENDERS}");
    let mut clients = vec![start(&receive)?];
    for host in SENDER..SENDER + SENDERS {
        clients.push(start(&format!(
            "send --from {host} --to {RECEIVER} --size {size} --batch {batch} --seconds {seconds}"
        ))?);
    }
    go(&mut clients)?;
    let mut sent = 0.0;
    for sender in &mut clients[1..] {
        sent += device.blame(sender.seen())?.frames(RECEIVER);
    }
    let seen = device.blame(clients[0].seen())?;
    let shares: Vec<f64> = (SENDER..SENDER + SENDERS).map(|host| seen.frames(host)).collect();
    let total: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    Ok([total * total / (f64::from(SENDERS) * squares), seen.value("rate"), sent - total])
}
