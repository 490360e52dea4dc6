//! Hosts that are joined by a TAP: what TCP gets through between the stacks of two, beside VDE's switch and the
//! kernel's own bridge, and what frames get through between a host and a socket.

use std::collections::BTreeMap;

use super::{Column, LARGEST, Placement, RUNS, Row, Shape, fresh_one_way, row};
use crate::Plan;
use crate::device::{self, Device, Kind, Setup};
use crate::frame::SLOTS;
use crate::iperf::{Direction, IPERF, Transfer, transfer};
use crate::lab::Lab;
use crate::netns;
use crate::report::{Report, Samples, Table, Target, down, up};
use crate::socket::Transport;

const HOST_SECONDS: f64 = 2.0;

const KINDS: [Kind; 6] = [Kind::Relay, Kind::Passthrough, Kind::Switch, Kind::Plain, Kind::Vde, Kind::Bridge];

/// A way of frames between a host and a socket: that of streams, and what `vde_switch` has instead.
struct Way {
    stream: [Transport; 2],
    vde: [Transport; 2],
}

const WAYS: [Way; 2] = [
    Way { stream: [Transport::Tap, Transport::Unix], vde: [Transport::Tap, Transport::Vde] },
    Way { stream: [Transport::Unix, Transport::Tap], vde: [Transport::Vde, Transport::Tap] },
];

impl Way {
    fn rows(&self) -> [Row; 4] {
        let [[from, to], [vde_from, vde_to]] = [self.stream, self.vde];
        [
            row(Kind::Relay, from, to),
            row(Kind::Switch, from, to),
            row(Kind::Plain, from, to),
            row(Kind::Vde, vde_from, vde_to),
        ]
    }
}

pub(crate) fn run(lab: &Lab, plan: &Plan, report: &mut Report) {
    if report.attempt("host", netns::keep_names_private()).is_none() {
        return;
    }
    if device::version(IPERF.as_ref()).is_some() {
        transfers(lab, plan, report);
    } else {
        eprintln!("host: no iperf3, so no TCP");
    }
    frames(lab, plan, report);
}

/// What the transfers through one device came to.
#[derive(Default)]
struct Transfers {
    gigabits: Samples,
    /// Seconds of the device for 1e9 bytes.
    cost: Samples,
    retransmits: Samples,
}

/// A transfer, and the processor time in seconds that it cost the device.
struct Costed {
    transfer: Transfer,
    cpu: f64,
}

impl Transfers {
    fn push(&mut self, run: Option<&Costed>) {
        let value = |of: fn(&Costed) -> f64| run.map_or(f64::NAN, of);
        self.gigabits.push(value(|run| run.transfer.bits_per_second * 1e-9));
        self.cost.push(value(|run| run.cpu / run.transfer.bytes * 1e9));
        self.retransmits.push(value(|run| run.transfer.retransmits));
    }
}

fn transfers(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&[
        "flow",
        "device",
        "Gbit/s",
        "min .. max",
        "of relay",
        "of VDE",
        "of bridge",
        "CPU s/GB",
        "retransmits",
    ]);
    for (flow, direction) in [("TCP, iperf3", Direction::Forth), ("TCP, iperf3 -R", Direction::Back)] {
        eprintln!("host: {flow}");
        let mut columns = BTreeMap::<Kind, Transfers>::new();
        for kind in plan.rounds(plan.runs(RUNS), &KINDS) {
            let run = fresh_transfer(lab, kind, direction, plan.seconds(HOST_SECONDS));
            let run = report.attempt(&format!("host {flow} {kind}"), run);
            columns.entry(kind).or_default().push(run.as_ref());
        }
        tabulate_transfers(&mut table, flow, &columns);
        hold_transfers_against_targets(report, flow, &columns);
    }
    Report::section(
        "Two hosts",
        "TCP between the stacks of two network namespaces, one way and the other. The relay moves a frame at a \
         time from TAP to TAP; with offload it passes segments of up to 64 KiB as they are. The kernel's bridge \
         joins two pairs of veth interfaces and has no process whose time could be told.",
        &table,
    );
}

fn fresh_transfer(lab: &Lab, kind: Kind, direction: Direction, seconds: f64) -> anyhow::Result<Costed> {
    let setup = Setup { transports: [Transport::Tap; 2], ports: 2, duplex: true, cpu: None };
    let device = Device::start(lab, kind, setup)?;
    let before = device.cpu_time()?;
    let transfer = device.blame(transfer(device.hosts()?, direction, seconds))?;
    Ok(Costed { transfer, cpu: (device.cpu_time()? - before).as_secs_f64() })
}

fn tabulate_transfers(table: &mut Table, flow: &str, columns: &BTreeMap<Kind, Transfers>) {
    for (kind, column) in columns {
        let of = |base: Kind| {
            let ratio = columns.get(&base).map(|base| column.gigabits.over(&base.gigabits).median);
            down(ratio.unwrap_or(f64::NAN), 3)
        };
        let cost = if kind.is_process() { column.cost.median() } else { f64::NAN };
        table.row([
            flow.to_owned(),
            kind.to_string(),
            down(column.gigabits.median(), 2),
            format!("{} .. {}", down(column.gigabits.min(), 2), down(column.gigabits.max(), 2)),
            of(Kind::Relay),
            of(Kind::Vde),
            of(Kind::Bridge),
            up(cost, 3),
            up(column.retransmits.median(), 0),
        ]);
    }
}

fn hold_transfers_against_targets(report: &mut Report, flow: &str, columns: &BTreeMap<Kind, Transfers>) {
    let Some(column) = columns.get(&Kind::Switch) else {
        return;
    };
    for (base, bound) in [(Kind::Vde, 3.0), (Kind::Bridge, 0.5)] {
        if let Some(base_column) = columns.get(&base) {
            let what = format!("{}: rate of {base}'s, {flow}", Kind::Switch);
            report.check(what, Target::AtLeast(bound), column.gigabits.over(&base_column.gigabits));
        }
    }
}

fn frames(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&[
        "flow",
        "device",
        "kframes/s",
        "min .. max",
        "Gbit/s",
        "of relay",
        "of VDE",
        "lost %",
        "min .. max",
        "missed %",
        "CPU ns/frame",
        "wrong",
    ]);
    for way in WAYS {
        let rows = way.rows();
        for &size in plan.size.iter().filter(|size| **size <= LARGEST) {
            let shape = |row: Row| Shape {
                transports: row.transports,
                size,
                batch: SLOTS,
                placement: Placement::Free,
            };
            eprintln!("host: {}", shape(rows[0]));
            let mut columns = BTreeMap::<Kind, Column>::new();
            for row in plan.rounds(plan.runs(RUNS), &rows) {
                let run = fresh_one_way(lab, row.kind, shape(row), plan.seconds(HOST_SECONDS), false);
                let run = report.attempt(&format!("host {} {}", shape(row), row.kind), run);
                columns.entry(row.kind).or_default().push(run.as_ref(), |run| {
                    // A receiver on a socket that makes others wait misses nothing.
                    (run.lost - run.missed.max(0.0)) / run.sent * 1e2
                });
            }
            for row in rows {
                if let Some(column) = columns.get(&row.kind) {
                    tabulate_frames(&mut table, row.kind, shape(row), column, &columns);
                }
            }
            hold_frames_against_targets(report, &shape(rows[0]).to_string(), &columns);
        }
    }
    Report::section(
        "Host and socket",
        "Frames between a program of a host, on a packet socket, and a socket of the device: 64 in a system call, \
         as fast as they are taken. The rate is that of frames that arrived, and were looked at byte by byte. \
         Nothing stops who sends to a TAP: what its queue has no room for is lost, and part of \"lost %\". Missed \
         is what the host got and the receiving program had no room for.",
        &table,
    );
}

fn tabulate_frames(
    table: &mut Table,
    kind: Kind,
    shape: Shape,
    column: &Column,
    columns: &BTreeMap<Kind, Column>,
) {
    let of = |base: Kind| columns.get(&base).map_or(f64::NAN, |base| column.rate.over(&base.rate).median);
    let rate = column.rate.scaled(1e-3);
    table.row([
        shape.to_string(),
        kind.to_string(),
        down(rate.median(), 1),
        format!("{} .. {}", down(rate.min(), 1), down(rate.max(), 1)),
        down(column.rate.median() * shape.size as f64 * 8e-9, 2),
        down(of(Kind::Relay), 3),
        down(of(Kind::Vde), 3),
        up(column.lost.median(), 3),
        format!("{} .. {}", up(column.lost.min(), 3), up(column.lost.max(), 3)),
        up(column.missed.median(), 3),
        up(column.nanoseconds.median(), 0),
        up(column.wrong.sum(), 0),
    ]);
}

fn hold_frames_against_targets(report: &mut Report, flow: &str, columns: &BTreeMap<Kind, Column>) {
    let Some(column) = columns.get(&Kind::Switch) else {
        return;
    };
    if let Some(vde) = columns.get(&Kind::Vde) {
        let what = format!("{}: rate of vde_switch's, {flow}", Kind::Switch);
        report.check(what, Target::AtLeast(1.5), column.rate.over(&vde.rate));
    }
    let what = format!("{}: frames reordered or corrupt, {flow}", Kind::Switch);
    report.check(what, Target::NeverOver(0.0), column.wrong.measured());
}
