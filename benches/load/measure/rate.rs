//! How many frames a second come through, what each costs the device, and whether all of them are right.

use std::collections::BTreeMap;

use super::{Column, Placement, Shape, attempt, fresh_one_way};
use crate::Plan;
use crate::device::Kind;
use crate::lab::Lab;
use crate::report::{Report, Samples, Table, Target, down, up};

const KINDS: [Kind; 4] = [Kind::Relay, Kind::Qemu, Kind::Switch, Kind::Hub];

/// Many and short, because a run stays as fast as the places that its processes got in the beginning allow.
const RATE_RUNS: usize = 7;
const RATE_SECONDS: f64 = 0.4;

/// Long enough to count a few thousand system calls.
const TRACED_SECONDS: f64 = 0.3;

pub(crate) fn run(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&[
        "flow",
        "device",
        "kframes/s",
        "min .. max",
        "Gbit/s",
        "of relay",
        "of QEMU",
        "CPU ns/frame",
        "lost",
        "wrong",
    ]);
    let mut faults = BTreeMap::<Kind, Samples>::new();
    for shape in shapes(plan, &plan.placement) {
        eprintln!("rate: {shape}");
        let mut columns = BTreeMap::<Kind, Column>::new();
        for kind in plan.rounds(plan.runs(RATE_RUNS), &KINDS) {
            let run = attempt(report, &format!("rate {shape} {kind}"), kind, || {
                fresh_one_way(lab, kind, shape, plan.seconds(RATE_SECONDS), false)
            });
            columns.entry(kind).or_default().push(run.as_ref(), |run| run.lost);
        }
        tabulate(&mut table, shape, &columns);
        hold_against_targets(report, shape, &columns);
        for (kind, column) in &columns {
            faults.entry(*kind).or_default().push(column.lost.sum() + column.wrong.sum());
        }
    }
    for kind in [Kind::Switch, Kind::Hub] {
        if let Some(faults) = faults.get(&kind) {
            let what = format!("{kind}: frames lost, reordered or corrupt, flow by flow");
            report.check(what, Target::NeverOver(0.0), faults.measured());
        }
    }
    Report::section(
        "Rate",
        "One sender that writes as fast as it is let, one receiver that checks every byte. \"Of relay\" and \
         \"of QEMU\" are ratios of medians. A flow is: transport, bytes x frames per write, and whether all \
         three processes have to share one core, where the time that each needs adds up, or run where the \
         system puts them, which differs from run to run.",
        &table,
    );
}

fn tabulate(table: &mut Table, shape: Shape, columns: &BTreeMap<Kind, Column>) {
    for (kind, column) in columns {
        let of = |base: Kind| columns.get(&base).map_or(f64::NAN, |base| column.rate.over(&base.rate).median);
        let rate = column.rate.scaled(1e-3);
        table.row([
            shape.to_string(),
            kind.to_string(),
            down(rate.median(), 1),
            format!("{} .. {}", down(rate.min(), 1), down(rate.max(), 1)),
            down(column.rate.median() * shape.size as f64 * 8e-9, 2),
            down(of(Kind::Relay), 3),
            down(of(Kind::Qemu), 2),
            up(column.nanoseconds.median(), 0),
            up(column.lost.sum(), 0),
            up(column.wrong.sum(), 0),
        ]);
    }
}

fn hold_against_targets(report: &mut Report, shape: Shape, columns: &BTreeMap<Kind, Column>) {
    let bulk_of_small = shape.size == 64 && shape.batch > 1;
    for kind in [Kind::Switch, Kind::Hub] {
        let Some(column) = columns.get(&kind) else {
            continue;
        };
        if let Some(relay) = columns.get(&Kind::Relay) {
            let target = Target::AtLeast(if bulk_of_small { 0.85 } else { 0.95 });
            report.check(format!("{kind}: rate of relay's, {shape}"), target, column.rate.over(&relay.rate));
        }
        if let Some(qemu) = columns.get(&Kind::Qemu)
            && (bulk_of_small || shape.size == 1514)
        {
            let target = Target::AtLeast(if bulk_of_small { 10.0 } else { 2.0 });
            report.check(
                format!("{kind}: rate of QEMU's hub, {shape}"),
                target,
                column.rate.over(&qemu.rate),
            );
        }
    }
}

/// A run of its own, because counting slows the device down: its reads then find more, so these are the
/// fewest calls that a frame can cost.
pub(crate) fn count_calls(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&["flow", "device", "calls/frame", "min .. max"]);
    for shape in shapes(plan, &[Placement::Free]) {
        eprintln!("syscalls: {shape}");
        let mut columns = BTreeMap::<Kind, Samples>::new();
        for kind in plan.rounds(plan.runs(1), &KINDS) {
            let run = attempt(report, &format!("syscalls {shape} {kind}"), kind, || {
                fresh_one_way(lab, kind, shape, TRACED_SECONDS, true)
            });
            let calls = run.and_then(|run| Some(run.calls? / run.delivered)).unwrap_or(f64::NAN);
            columns.entry(kind).or_default().push(calls);
        }
        for (kind, calls) in columns {
            let range = format!("{} .. {}", up(calls.min(), 4), up(calls.max(), 4));
            table.row([shape.to_string(), kind.to_string(), up(calls.median(), 4), range]);
        }
    }
    Report::section(
        "System calls",
        "Counted by `strace -c` in short runs of their own. It slows the device down, whose reads then find \
         more at once: the relay's column shows how much of it is that.",
        &table,
    );
}

fn shapes(plan: &Plan, placements: &[Placement]) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for &placement in placements {
        for &transport in &plan.transport {
            for &size in &plan.size {
                for &batch in &plan.batch {
                    shapes.push(Shape { transports: [transport; 2], size, batch, placement });
                }
            }
        }
    }
    shapes
}
