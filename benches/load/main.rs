//! How fast the hub is, beside raw relays, QEMU's own hub, VDE's switch and the kernel's bridge, on this machine
//! and in the same minutes.
//!
//! One binary is everything: the orchestrator that runs the measurements one after the other, and, started
//! again by it with a role, each process that takes part in one (see [`role`]). `scripts/bench` runs it;
//! `benches/README.md` says how to read what it prints.
//!
//! ```text
//! sender process --socket--> device under test --socket--> receiver process
//!       ^                          ^                            ^
//!       +---- "go", report --- orchestrator: /proc/PID ---------+
//! ```
//!
//! Devices are measured in alternating runs, each with fresh processes, and compared by their medians: a
//! shared machine is fast and slow for minutes at a time, and so both see the same of it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports to a terminal")]
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator reads the clock and sleeps; determinism is the hub's"
)]

mod channel;
mod datagram;
mod device;
mod frame;
mod hosts;
mod iperf;
mod lab;
mod measure;
mod netns;
mod process;
mod raw;
mod report;
mod role;
mod socket;
mod tracer;
mod vde;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs, thread};

use clap::{Parser, ValueEnum};

use crate::device::Kind;
use crate::lab::Lab;
use crate::measure::{Placement, datagram as datagrams, fair, host, rate, rtt, scale, vde as vdes};
use crate::report::Report;
use crate::socket::Transport;

/// Measures the hub beside raw relays, QEMU's own hub, VDE's switch and the kernel's bridge.
#[derive(Parser)]
#[command(bin_name = "scripts/bench")]
struct Cli {
    /// What to measure; without any, everything.
    sections: Vec<Section>,

    #[command(flatten)]
    plan: Plan,

    /// The hub to measure.
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_qhub"))]
    qhub: PathBuf,

    /// Given by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Delivered frames per second, loss, order and content, processor time.
    Rate,
    /// System calls per frame.
    Syscalls,
    /// Round trips of an idle and of a busy segment.
    Rtt,
    /// Slow and stuck ports, and many senders to one port.
    Fair,
    /// Idle ports in great number, and a flood of made-up addresses.
    Scale,
    /// Pairs on datagram ports: delivered frames per second, loss, processor time.
    Datagram,
    /// Clients of VDE: delivered frames per second, loss, processor time; and floods.
    Vde,
    /// Hosts that are joined by TAPs: TCP between two, and frames to and from a socket.
    Host,
}

const DEVICES: &str = "relay,passthrough,qemu,switch,plain,hub,vde,bridge,bus";

/// How much of everything is measured.
#[derive(clap::Args)]
struct Plan {
    /// Runs of each device [default: 5; rate: 7; round trips: 11].
    #[arg(long)]
    runs: Option<usize>,
    /// Length of a run [default: 0.6; rates, round trips: 0.4; round trips under load: 1.2; hosts:
    /// and VDE: 2; slow ports and datagrams: 3].
    #[arg(long)]
    seconds: Option<f64>,
    #[arg(long, value_delimiter = ',', default_value = "unix,tcp")]
    transport: Vec<Transport>,
    /// Frame sizes.
    #[arg(long, value_delimiter = ',', default_value = "64,1514,9014")]
    size: Vec<usize>,
    /// Frames per write.
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    batch: Vec<usize>,
    #[arg(long, value_delimiter = ',', default_value = DEVICES)]
    device: Vec<Kind>,
    /// Where the processes of a rate run.
    #[arg(long, value_delimiter = ',', default_value = "free,one-core")]
    placement: Vec<Placement>,
}

impl Plan {
    fn runs(&self, default: usize) -> usize {
        self.runs.unwrap_or(default)
    }

    fn seconds(&self, default: f64) -> f64 {
        self.seconds.unwrap_or(default)
    }

    /// Those of `candidates` whose kind is wanted, once per run, each time beginning with another one.
    fn rounds<T: Copy + Into<Kind>>(&self, runs: usize, candidates: &[T]) -> Vec<T> {
        let wanted: Vec<T> =
            candidates.iter().copied().filter(|&candidate| self.device.contains(&candidate.into())).collect();
        (0..runs)
            .flat_map(|run| wanted.iter().cycle().skip(run % wanted.len().max(1)).take(wanted.len()))
            .copied()
            .collect()
    }
}

fn main() -> anyhow::Result<ExitCode> {
    if env::args_os().nth(1).is_some_and(|first| first == "role") {
        return role::run(&role::Cli::parse_from(env::args_os().skip(1))).map(|()| ExitCode::SUCCESS);
    }
    if !env::args_os().any(|arg| arg == "--bench") {
        // `cargo test --all-targets` starts benchmarks as well, and has no use for numbers.
        return Ok(ExitCode::SUCCESS);
    }
    let mut cli = Cli::parse();
    if cli.sections.is_empty() {
        cli.sections = Section::value_variants().to_vec();
    }
    if device::qemu_version().is_none() {
        cli.plan.device.retain(|kind| *kind != Kind::Qemu);
    }
    if device::vde_version().is_none() {
        cli.plan.device.retain(|kind| *kind != Kind::Vde);
    }
    let started = Instant::now();
    let lab = Lab::new(cli.qhub)?;
    let mut report = Report::new();
    println!("{}", machine(lab.hub()));
    for section in Section::value_variants().iter().filter(|section| cli.sections.contains(section)) {
        match section {
            Section::Rate => rate::run(&lab, &cli.plan, &mut report),
            Section::Syscalls => rate::count_calls(&lab, &cli.plan, &mut report),
            Section::Rtt => rtt::run(&lab, &cli.plan, &mut report),
            Section::Fair => fair::run(&lab, &cli.plan, &mut report),
            Section::Scale => scale::run(&lab, &cli.plan, &mut report),
            Section::Datagram => datagrams::run(&lab, &cli.plan, &mut report),
            Section::Vde => vdes::run(&lab, &cli.plan, &mut report),
            Section::Host => host::run(&lab, &cli.plan, &mut report),
        }
    }
    report.finish();
    eprintln!("{} s in all", started.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}

/// What the numbers were measured on.
fn machine(hub: &Path) -> String {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = file("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    format!(
        "Machine: {}, {} processors, Linux {}. {}. {}. {}.\n",
        model.trim_start_matches(['\t', ' ', ':']),
        thread::available_parallelism().map_or(0, usize::from),
        file("/proc/sys/kernel/osrelease").trim(),
        device::version(hub).unwrap_or_else(|| "no hub".to_owned()),
        device::qemu_version().unwrap_or_else(|| "no QEMU".to_owned()),
        device::vde_version().unwrap_or_else(|| "no vde_switch".to_owned()),
    )
}
