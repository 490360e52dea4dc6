//! What a busy pair of ports notices of many that are idle, and of one that makes up addresses.

use super::{NOBODY, OTHER, Placement, RECEIVER, RUNS, SECONDS, SENDER, Shape, one_way};
use crate::Plan;
use crate::device::{Device, Kind, Setup};
use crate::lab::Lab;
use crate::process::{Client, go};
use crate::report::{Report, Samples, Table, Target, down, up};
use crate::socket::Transport;

const IDLE_PORTS: u16 = 1000;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Frames per second.
const FLOOD_RATE: u32 = 100_000;
const PAIR_RATE: u32 = 20_000;
const FLOOD_SIZE: usize = 64;
const PAIR_SIZE: usize = 1514;

/// The pairs beside the idle ports: as QEMU writes, and where the cost of a frame shows most.
const BUSY: [(usize, usize); 2] = [(1514, 1), (64, 64)];

pub(crate) fn run(lab: &Lab, plan: &Plan, report: &mut Report) {
    if plan.device.contains(&Kind::Switch) {
        idle_ports(lab, plan, report);
        flood(lab, plan, report);
    }
}

fn idle_ports(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table =
        Table::new(&["flow", "idle ports", "kframes/s", "min .. max", "ratio", "peak memory MiB"]);
    for &transport in &plan.transport {
        for (size, batch) in BUSY {
            let shape = Shape { transports: [transport; 2], size, batch, placement: Placement::OneCore };
            eprintln!("idle ports: {shape}");
            let mut columns = [
                (0, Samples::default(), Samples::default()),
                (IDLE_PORTS, Samples::default(), Samples::default()),
            ];
            for _ in 0..plan.runs(RUNS) {
                for (idle, rate, memory) in &mut columns {
                    let run = pair_beside_idle(lab, shape, *idle, plan.seconds(SECONDS));
                    let run = report.attempt(&format!("{idle} idle ports {shape}"), run);
                    let [frames, bytes] = run.unwrap_or([f64::NAN; 2]);
                    rate.push(frames / 1e3);
                    memory.push(bytes / MEBIBYTE);
                }
            }
            let [(_, alone, _), (_, among, memory)] = &columns;
            let ratio = among.over(alone);
            report.check(
                format!("{}: rate with {IDLE_PORTS} idle ports, {shape}", Kind::Switch),
                Target::AtLeast(0.95),
                ratio,
            );
            report.check(
                format!("{}: MiB with {IDLE_PORTS} idle ports, {shape}", Kind::Switch),
                Target::Under(64.0),
                memory.measured(),
            );
            for (idle, rate, memory) in &columns {
                table.row([
                    shape.to_string(),
                    idle.to_string(),
                    down(rate.median(), 1),
                    format!("{} .. {}", down(rate.min(), 1), down(rate.max(), 1)),
                    if *idle == 0 { "1".to_owned() } else { down(ratio.median, 3) },
                    up(memory.max(), 1),
                ]);
            }
        }
    }
    Report::section(
        "Idle ports",
        "A saturated pair, on one core with the switch, alone and among ports that have said hello once.",
        &table,
    );
}

/// Frames per second of the pair, and bytes of memory.
fn pair_beside_idle(lab: &Lab, shape: Shape, idle: u16, seconds: f64) -> anyhow::Result<[f64; 2]> {
    let device = Device::start(lab, Kind::Switch, shape.setup(2 + usize::from(idle)))?;
    let _idle = device.blame(Client::start(&format!("idle --ports {idle}"), Some(device.port(0)), None))?;
    let pair = device.blame(one_way(lab, &device, shape, seconds, false))?;
    Ok([pair.rate, device.peak_memory()? as f64])
}

fn flood(lab: &Lab, plan: &Plan, report: &mut Report) {
    let mut table = Table::new(&[
        "transport",
        "flood frames/s",
        "pair delivered %",
        "min .. max",
        "reordered or corrupt",
    ]);
    for &transport in &plan.transport {
        for rate in [0, FLOOD_RATE] {
            eprintln!("flood: {transport}, {rate} frames/s");
            let [mut flood, mut delivered, mut wrong] = <[Samples; 3]>::default();
            for _ in 0..plan.runs(RUNS) {
                let run = pair_beside_flood(lab, transport, rate, plan.seconds(SECONDS));
                let run = report.attempt(&format!("flood {transport}"), run);
                let [a, b, c] = run.unwrap_or([f64::NAN; 3]);
                flood.push(a);
                delivered.push(b);
                wrong.push(c);
            }
            let percent = delivered.scaled(100.0);
            table.row([
                transport.to_string(),
                down(flood.median(), 0),
                down(percent.median(), 2),
                format!("{} .. {}", down(percent.min(), 2), down(percent.max(), 2)),
                up(wrong.sum(), 0),
            ]);
            if rate > 0 {
                let what =
                    format!("{}: % of 20,000 frames/s delivered in a MAC flood, {transport}", Kind::Switch);
                report.check(what, Target::AtLeast(90.0), percent.measured());
            }
        }
    }
    Report::section(
        "Flood of made-up addresses",
        "A pair at 20,000 frames/s of 1514 bytes, alone and beside 100,000 frames/s of 64 bytes from random \
         sources to an address that nobody has.",
        &table,
    );
}

/// Frames per second of the flood, fraction of the pair's frames that came through in time, and those that
/// came wrong.
fn pair_beside_flood(lab: &Lab, transport: Transport, rate: u32, seconds: f64) -> anyhow::Result<[f64; 3]> {
    let device = Device::start(
        lab,
        Kind::Switch,
        Setup { transports: [transport; 2], ports: 3, duplex: false, cpu: None },
    )?;
    let start = |line: &str| device.blame(Client::start(line, Some(device.port(0)), None));
    // All of them read what is flooded to them, as guests do.
    let mut receiver = start(&format!("receive --host {RECEIVER} --size {PAIR_SIZE}"))?;
    let send = format!("send --seconds {seconds} --drain");
    let pair = format!("--from {SENDER} --to {RECEIVER} --size {PAIR_SIZE} --rate {PAIR_RATE}");
    let mut sender = start(&format!("{send} {pair}"))?;
    let random = format!("--from {OTHER} --to {NOBODY} --size {FLOOD_SIZE} --rate {rate} --spoof");
    let mut flood = start(&format!("{send} {random}"))?;
    go([&mut receiver, &mut flood, &mut sender])?;
    device.blame(sender.seen())?;
    let seen = device.blame(receiver.seen())?;
    let flooded = device.blame(flood.seen())?.frames(NOBODY);
    Ok([
        flooded / seconds,
        seen.frames(SENDER) / (f64::from(PAIR_RATE) * seconds),
        seen.value("reordered") + seen.value("corrupt"),
    ])
}
