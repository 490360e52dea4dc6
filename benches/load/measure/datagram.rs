//! Pairs of ports that carry each frame in a datagram, and mixed pairs, beside what the sockets allow, VDE's
//! switch and a bus without anybody in the middle.

use super::versus::Versus;
use super::{LARGEST, Placement, RUNS, Row, Shape, fresh_one_way, row};
use crate::Plan;
use crate::device::Kind;
use crate::lab::Lab;
use crate::report::{Report, Table, Target};
use crate::socket::Transport;

/// Long enough for a port to spend the time that others may wait for it, which it is given anew each second.
const DATAGRAM_SECONDS: f64 = 3.0;

const RELAY: Row = row(Kind::Relay, Transport::Dgram, Transport::Dgram);
const VDE: Row = row(Kind::Vde, Transport::Vde, Transport::Vde);

/// Those that there are targets for.
const PROMISED: [Row; 3] = [
    row(Kind::Switch, Transport::Dgram, Transport::Dgram),
    row(Kind::Switch, Transport::Unix, Transport::Dgram),
    row(Kind::Switch, Transport::Dgram, Transport::Unix),
];

const ROWS: [Row; 8] = [
    RELAY,
    VDE,
    PROMISED[0],
    PROMISED[1],
    PROMISED[2],
    // From here on they are for information.
    row(Kind::Switch, Transport::Udp, Transport::Udp),
    row(Kind::Switch, Transport::Mcast, Transport::Unix),
    row(Kind::Bus, Transport::Mcast, Transport::Mcast),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&Versus::HEAD);
    for &placement in &plan.placement {
        // Nothing stops who sends to UDP: on one core it would show how the system shares that.
        let rows = match placement {
            Placement::Free => &ROWS,
            Placement::OneCore => &ROWS[..2 + PROMISED.len()],
        };
        for &size in plan.size.iter().filter(|size| **size <= LARGEST) {
            for &batch in &plan.batch {
                let shape = |row: Row| Shape { transports: row.transports, size, batch, placement };
                eprintln!("datagram: {}", shape(RELAY));
                let mut versus = Versus::new(RELAY, VDE);
                for row in plan.rounds(plan.runs(RUNS), rows) {
                    let seconds = plan.seconds(DATAGRAM_SECONDS);
                    let run = fresh_one_way(lab, row.kind, shape(row), seconds, false);
                    let run = report.attempt(&format!("datagram {} {}", shape(row), row.kind), run);
                    versus.column(row).push(run.as_ref(), |run| run.lost / run.sent * 1e2);
                }
                versus.tabulate(&mut table, &ROWS, size, |row| shape(row).to_string());
                hold_against_targets(report, shape, &versus);
            }
        }
    }
    Report::section(
        "Datagrams",
        "One sender that sends as fast as it is let, in a system call for each frame or for 64; one receiver that \
         takes all that there is and checks every byte. Lost is what was sent and did not arrive. The relay \
         copies between two pairs of unix sockets that are connected to each other, up to 64 frames at a time.",
        &table,
    );
}

fn hold_against_targets(report: &mut Report, shape: impl Fn(Row) -> Shape, versus: &Versus) {
    for row in PROMISED {
        let Some(column) = versus.seen(row) else {
            continue;
        };
        let what = |what: &str| format!("{}: {what}, {}", row.kind, shape(row));
        if let Some(rate) = versus.of_relay(row, |column| &column.rate) {
            report.check(what("rate of relay's"), Target::AtLeast(0.8), rate);
        }
        if let Some(rate) = versus.of_vde(row, |column| &column.rate) {
            report.check(what("rate of vde_switch's"), Target::AtLeast(1.0), rate);
        }
        if let Some(cost) = versus.of_vde(row, |column| &column.nanoseconds) {
            report.check(what("CPU of vde_switch's"), Target::AtMost(0.5), cost);
        }
        if let Some(vde) = versus.seen(VDE) {
            report.check(
                what("lost % less vde_switch's"),
                Target::NeverOver(0.0),
                column.lost.minus(&vde.lost),
            );
        }
        report.check(what("frames reordered or corrupt"), Target::NeverOver(0.0), column.wrong.measured());
    }
}
