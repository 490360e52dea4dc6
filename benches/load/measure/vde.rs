//! VDE's clients on the hub, on what their sockets allow, and on VDE's own switch.

use super::versus::Versus;
use super::{LARGEST, OneWay, Placement, RUNS, Row, SENDER, Shape, fresh_one_way, row};
use crate::Plan;
use crate::device::{Device, Kind, Setup};
use crate::frame::Host;
use crate::lab::Lab;
use crate::process::{Client, go};
use crate::report::{Report, Table, Target};
use crate::socket::Transport;

/// Long enough for a port to spend the time that others may wait for it.
const VDE_SECONDS: f64 = 2.0;

/// Frames per second of a flood, each of which goes to so many ports.
const FLOOD: u32 = 30_000;
const FLOODED: u16 = 8;

const RELAY: Row = row(Kind::Relay, Transport::Vde, Transport::Vde);
const VDE: Row = row(Kind::Vde, Transport::Vde, Transport::Vde);
const SWITCH: Row = row(Kind::Switch, Transport::Vde, Transport::Vde);

const ROWS: [Row; 3] = [RELAY, VDE, SWITCH];

pub(crate) fn run(lab: &Lab, plan: &Plan, report: &mut Report) {
    pairs(lab, plan, report);
    floods(lab, plan, report);
}

fn pairs(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&Versus::HEAD);
    for &placement in &plan.placement {
        for &size in &plan.size {
            let rows: &[Row] = if size > LARGEST { &[RELAY, SWITCH] } else { &ROWS };
            for &batch in &plan.batch {
                let shape = Shape { transports: SWITCH.transports, size, batch, placement };
                eprintln!("vde: {shape}");
                let mut versus = Versus::new(RELAY, VDE);
                for row in plan.rounds(plan.runs(RUNS), rows) {
                    let run = fresh_one_way(lab, row.kind, shape, plan.seconds(VDE_SECONDS), false);
                    let run = report.attempt(&format!("{shape} {}", row.kind), run);
                    versus.column(row).push(run.as_ref(), lost_percent);
                }
                versus.tabulate(&mut table, rows, size, |_| shape.to_string());
                hold_pair(report, shape, &versus);
            }
        }
    }
    Report::section(
        "VDE: pairs",
        "One client that sends as fast as it is let, in a system call for each frame or for 64; one that takes \
         all that there is and checks every byte. Both join as libvdeplug does. The relay copies between the \
         same sockets, up to 64 frames at a time, and looks at none.",
        &table,
    );
}

fn hold_pair(report: &mut Report, shape: Shape, versus: &Versus) {
    let what = |what: &str| format!("{}: {what}, {shape}", Kind::Switch);
    if let Some(rate) = versus.of_relay(SWITCH, |column| &column.rate) {
        report.check(what("rate of relay's"), Target::AtLeast(0.95), rate);
    }
    if let Some(rate) = versus.of_vde(SWITCH, |column| &column.rate) {
        report.check(what("rate of vde_switch's"), Target::Above(1.0), rate);
    }
    if let Some(cost) = versus.of_vde(SWITCH, |column| &column.nanoseconds) {
        report.check(what("CPU of vde_switch's"), Target::AtMost(0.4), cost);
    }
    hold_sound(report, what, versus);
}

/// What every flow is to be.
fn hold_sound(report: &mut Report, what: impl Fn(&str) -> String, versus: &Versus) {
    if let Some(column) = versus.seen(SWITCH) {
        report.check(what("lost %"), Target::Under(0.1), column.lost.measured());
        report.check(what("frames reordered or corrupt"), Target::NeverOver(0.0), column.wrong.measured());
    }
}

fn floods(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&Versus::HEAD);
    for &size in plan.size.iter().filter(|size| **size <= LARGEST) {
        let name = format!("vde {size} x 1, one to {FLOODED}");
        eprintln!("{name}");
        let mut versus = Versus::new(RELAY, VDE);
        for row in plan.rounds(plan.runs(RUNS), &ROWS) {
            let run = flood(lab, row, size, plan.seconds(VDE_SECONDS));
            let run = report.attempt(&format!("{name} {}", row.kind), run);
            versus.column(row).push(run.as_ref(), lost_percent);
        }
        versus.tabulate(&mut table, &ROWS, size, |_| name.clone());
        let what = |what: &str| format!("{}: {what}, {name}", Kind::Switch);
        if let Some(cost) = versus.of_vde(SWITCH, |column| &column.nanoseconds) {
            report.check(what("CPU of vde_switch's"), Target::AtMost(0.2), cost);
        }
        hold_sound(report, what, &versus);
    }
    Report::section(
        "VDE: floods",
        "One client sends 30,000 frames/s to the broadcast address, what is due each millisecond in a system call \
         for each frame; eight take them. Everything is counted in copies. The relay sends what it found to \
         one after the other.",
        &table,
    );
}

fn flood(lab: &Lab, row: Row, size: usize, seconds: f64) -> anyhow::Result<OneWay> {
    let ports = usize::from(FLOODED) + 1;
    let setup = Setup { transports: row.transports, ports, duplex: false, cpu: Placement::Free.cpu() };
    let device = Device::start(lab, row.kind, setup)?;
    let Host(all) = Host::ALL;
    let stations: Vec<String> = (1..=FLOODED).map(|host| host.to_string()).collect();
    let send = format!(
        "send --from {SENDER} --to {all} --greet {} --size {size} --rate {FLOOD} --seconds {seconds}",
        stations.join(",")
    );
    let start = |line: &str, port| device.blame(Client::start(line, Some(device.port(port)), None));
    // The relay repeats what its first port gets.
    let mut sender = start(&send, 0)?;
    let receiver = |(host, port)| start(&format!("receive --host {host} --size {size}"), port);
    let mut receivers: Vec<Client> = stations.iter().zip(1..).map(receiver).collect::<Result<_, _>>()?;
    let before = device.cpu_time()?;
    go(receivers.iter_mut().chain([&mut sender]))?;
    let sent = device.blame(sender.seen())?.frames(all) * f64::from(FLOODED);
    let [mut rate, mut delivered, mut wrong] = [0.0; 3];
    for receiver in &mut receivers {
        let seen = device.blame(receiver.seen())?;
        rate += seen.value("rate");
        delivered += seen.frames(SENDER);
        wrong += seen.value("reordered") + seen.value("corrupt");
    }
    let cpu = (device.cpu_time()? - before).as_secs_f64();
    // It goes on sending, and nobody is to leave before it does.
    drop(sender);
    Ok(OneWay { rate, sent, delivered, lost: sent - delivered, missed: f64::NAN, wrong, cpu, calls: None })
}

fn lost_percent(run: &OneWay) -> f64 {
    run.lost / run.sent * 1e2
}
