//! How long a frame takes: one at a time through an idle device, and past a saturating flow to the same port.

use std::collections::BTreeMap;

use super::{CLIENT_CPU, DEVICE_CPU, OTHER, Placement, RECEIVER, RUNS, SENDER, Shape, attempt};
use crate::Plan;
use crate::device::{Device, Kind, Setup};
use crate::lab::Lab;
use crate::process::{Client, Seen, go};
use crate::report::{Report, Samples, Table, Target, up};
use crate::socket::Transport;

/// Round trips depend on who shares a core with whom, so they need more runs, and processes that stay in
/// their place.
const PINNED_RUNS: usize = 11;

const IDLE_SECONDS: f64 = 0.4;
/// Time for a thousand pings.
const BUSY_SECONDS: f64 = 1.2;

const IDLE_KINDS: [Kind; 4] = [Kind::Relay, Kind::Qemu, Kind::Switch, Kind::Hub];

/// A relay joins two ports only.
const BUSY_KINDS: [Kind; 3] = [Kind::Qemu, Kind::Switch, Kind::Hub];

/// The flow that pings have to pass: frames of the usual size, as QEMU writes them, and in bulk.
const BACKGROUND_SIZE: usize = 1514;
const BACKGROUND_BATCHES: [usize; 2] = [1, 64];

pub(crate) fn run(lab: &Lab, plan: &Plan, report: &mut Report) {
    idle(lab, plan, report);
    busy(lab, plan, report);
}

fn idle(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&["transport", "device", "p50 us", "min .. max", "p99 us", "of relay"]);
    for &transport in &plan.transport {
        eprintln!("rtt: {transport}");
        let mut columns = BTreeMap::<Kind, [Samples; 2]>::new();
        for kind in plan.rounds(plan.runs(PINNED_RUNS), &IDLE_KINDS) {
            let seen = attempt(report, &format!("rtt {transport} {kind}"), kind, || {
                ping(lab, kind, transport, plan.seconds(IDLE_SECONDS))
            });
            let seen = seen.unwrap_or_default();
            let [p50, p99] = columns.entry(kind).or_default();
            p50.push(seen.value("p50"));
            p99.push(seen.value("p99"));
        }
        for (kind, [p50, p99]) in &columns {
            let of_relay = columns.get(&Kind::Relay).map(|[relay, _]| p50.over(relay));
            let us = p50.scaled(1e6);
            table.row([
                transport.to_string(),
                kind.to_string(),
                up(us.median(), 2),
                format!("{} .. {}", up(us.min(), 2), up(us.max(), 2)),
                up(p99.median() * 1e6, 2),
                up(of_relay.map_or(f64::NAN, |ratio| ratio.median), 3),
            ]);
            if let (Kind::Switch | Kind::Hub, Some(ratio)) = (kind, of_relay) {
                report.check(
                    format!("{kind}: round trip of relay's, {transport}"),
                    Target::AtMost(1.05),
                    ratio,
                );
            }
        }
    }
    Report::section(
        "Round trip",
        "One 64-byte frame at a time, there and back; the device on one core, both clients on the other.",
        &table,
    );
}

fn ping(lab: &Lab, kind: Kind, transport: Transport, seconds: f64) -> anyhow::Result<Seen> {
    let device = Device::start(
        lab,
        kind,
        Setup { transports: [transport; 2], ports: 2, duplex: true, cpu: Some(DEVICE_CPU) },
    )?;
    let start =
        |line: &str, port| device.blame(Client::start(line, Some(device.port(port)), Some(CLIENT_CPU)));
    let mut pinger = start(&format!("ping --from {SENDER} --to {RECEIVER} --seconds {seconds}"), 0)?;
    let mut echo = start(&format!("receive --host {RECEIVER} --size 64"), 1)?;
    go([&mut echo, &mut pinger])?;
    device.blame(pinger.seen())
}

fn busy(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table =
        Table::new(&["flow", "device", "p50 us", "p99 us", "min .. max", "longest us", "pings", "lost"]);
    for &transport in &plan.transport {
        for batch in BACKGROUND_BATCHES {
            let shape = Shape {
                transports: [transport; 2],
                size: BACKGROUND_SIZE,
                batch,
                placement: Placement::Free,
            };
            eprintln!("rtt under load: {shape}");
            let mut columns = BTreeMap::<Kind, [Samples; 5]>::new();
            for kind in plan.rounds(plan.runs(RUNS), &BUSY_KINDS) {
                let seen = attempt(report, &format!("rtt under load {shape} {kind}"), kind, || {
                    ping_past(lab, kind, shape, plan.seconds(BUSY_SECONDS))
                });
                let seen = seen.unwrap_or_default();
                let names = ["p50", "p99", "longest", "pings", "lost"];
                for (samples, name) in columns.entry(kind).or_default().iter_mut().zip(names) {
                    samples.push(seen.value(name));
                }
            }
            for (kind, [p50, p99, longest, pings, lost]) in &columns {
                table.row([
                    shape.to_string(),
                    kind.to_string(),
                    up(p50.median() * 1e6, 1),
                    up(p99.median() * 1e6, 1),
                    format!("{} .. {}", up(p99.min() * 1e6, 1), up(p99.max() * 1e6, 1)),
                    up(longest.max() * 1e6, 1),
                    up(pings.sum(), 0),
                    up(lost.sum(), 0),
                ]);
                if *kind == Kind::Switch {
                    let ms = p99.scaled(1e3).measured();
                    report.check(format!("{kind}: p99 under load in ms, {shape}"), Target::Under(2.0), ms);
                    let lost = lost.measured();
                    report.check(
                        format!("{kind}: pings lost under load, {shape}"),
                        Target::NeverOver(0.0),
                        lost,
                    );
                }
            }
        }
    }
    Report::section(
        "Round trip under load",
        "A ping every millisecond to a port that a saturating flow goes to as well. Nothing is pinned.",
        &table,
    );
}

fn ping_past(lab: &Lab, kind: Kind, shape: Shape, seconds: f64) -> anyhow::Result<Seen> {
    let Shape { size, batch, .. } = shape;
    let device = Device::start(lab, kind, shape.setup(3))?;
    let start = |line: &str, port| device.blame(Client::start(line, Some(device.port(port)), None));
    // The flow begins with the pings and goes on a little longer.
    let flow_seconds = seconds + 0.2;
    let mut echo = start(&format!("receive --host {RECEIVER} --size {size} --flows 2"), 0)?;
    let flow = format!(
        "send --from {SENDER} --to {RECEIVER} --size {size} --batch {batch} --seconds {flow_seconds} --drain"
    );
    let mut flow = start(&flow, 1)?;
    let mut pinger = start(&format!("ping --from {OTHER} --to {RECEIVER} --seconds {seconds} --pause"), 2)?;
    go([&mut echo, &mut flow, &mut pinger])?;
    let seen = device.blame(pinger.seen())?;
    device.blame(echo.seen())?;
    Ok(seen)
}
