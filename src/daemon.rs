//! `qhub run`: opens what was asked for, says how to join, and turns the hub until a signal ends it.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use log::{info, warn};
use mio::Token;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cli::RunArgs;
use crate::config::{HostPort, PortKind, PortOptions, PortSpec, UnixName};
use crate::hub::{self, Door, Hub, HubConfig};
use crate::instance::{Instance, Macs};
use crate::logging::{self, Log};
use crate::signals::{self, Request, Signals};
use crate::welcome::Welcome;

/// Octets of memory for all egress queues together.
const QUEUE_MEMORY: usize = 256 << 20;

/// The TCP port that is served unless something else is asked for.
const DEFAULT_TCP: u16 = 5555;

/// Runs a hub until SIGINT or SIGTERM.
///
/// # Errors
///
/// When something that was asked for can't be opened; says what to do.
pub fn run(args: &RunArgs) -> Result<()> {
    let now = hub::now();
    // First of all: an inherited descriptor is known by its number only.
    let (inherited, named): (Vec<_>, Vec<_>) =
        args.ports.iter().partition(|spec| matches!(spec.kind, PortKind::Fd(_)));
    let inherited = open_all(&inherited, now)?;
    let macs = Macs::of(&args.name);
    let log = Log::start(args.log_filter()).context("start to log")?;
    let result = serve(args, inherited, &named, &macs, now);
    log.flush();
    result
}

fn serve(args: &RunArgs, inherited: Vec<Door>, named: &[&PortSpec], macs: &Macs, now: Instant) -> Result<()> {
    raise_file_limit();
    let config = HubConfig { bridge: args.bridge(), max_ports: args.max_ports(), memory: QUEUE_MEMORY };
    let mut hub = Hub::new(config).context("make the poll")?;
    // From here on a signal leaves no socket file behind.
    let mut signals = Signals::catch(hub.registry(), Token(hub::OUTSIDE))?;
    let instance = Instance::open(&args.name)?;
    let mut doors = inherited;
    doors.push(open_instance(&instance, now)?);
    doors.extend(open_all(named, now)?);
    if args.ports.is_empty() && !args.no_tcp {
        doors.extend(open_default_tcp(now));
    }
    let tcp: Vec<SocketAddr> = doors.iter().filter_map(Door::tcp_address).collect();
    for door in doors {
        hub.add(door, now)?;
    }
    let unix: Vec<UnixName> =
        [UnixName::Path(instance.socket())].into_iter().chain(unix_names(named)).collect();
    let others: Vec<&PortKind> = named.iter().map(|spec| &spec.kind).collect();
    let welcome = Welcome {
        instance: instance.name(),
        macs,
        mode: args.bridge().mode,
        unix: &unix,
        tcp: &tcp,
        others: &others,
    };
    print_aside(welcome.to_string());
    turn_until_stopped(&mut hub, &mut signals)?;
    for line in hub.snapshot(hub::now()).totals() {
        info!("{line}");
    }
    Ok(())
}

/// The unix sockets that were asked for.
fn unix_names(specs: &[&PortSpec]) -> impl Iterator<Item = UnixName> {
    specs.iter().filter_map(|spec| match &spec.kind {
        PortKind::Unix { name, .. } => Some(name.clone()),
        PortKind::Tcp(_)
        | PortKind::Connect(_)
        | PortKind::Fd(_)
        | PortKind::Udp { .. }
        | PortKind::Dgram { .. }
        | PortKind::L2tpv3 { .. }
        | PortKind::Mcast(_) => None,
    })
}

/// Prints without waiting for whoever reads stdout.
fn print_aside(text: String) {
    thread::spawn(move || {
        if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
            warn!("can't print how to join: {error}");
        }
    });
}

fn turn_until_stopped(hub: &mut Hub, arrived: &mut Signals) -> Result<()> {
    let mut is_stopping = false;
    loop {
        let now = hub::now();
        hub.turn(now);
        if hub.is_drained(now) {
            return Ok(());
        }
        let timeout = hub.wake().map(|wake| wake.saturating_duration_since(now));
        if hub.wait(timeout).context("wait for events")?.is_empty() {
            continue;
        }
        for request in arrived.requests() {
            match request {
                Request::Show => info!(target: logging::ASKED, "{}", hub.snapshot(hub::now())),
                Request::Stop if is_stopping => std::process::exit(signals::TERMINATED),
                Request::Stop => {
                    info!("stopping; a second signal stops at once");
                    is_stopping = true;
                    hub.drain(hub::now());
                }
            }
        }
    }
}

fn open_all(specs: &[&PortSpec], now: Instant) -> Result<Vec<Door>> {
    specs.iter().map(|spec| Door::open(spec, now)).collect()
}

fn open_instance(instance: &Instance, now: Instant) -> Result<Door> {
    let name = UnixName::Path(instance.socket());
    let kind = PortKind::Unix { name, mode: 0o600, any_user: false };
    let spec = PortSpec { kind, options: PortOptions::default() };
    Door::open(&spec, now)
        .with_context(|| format!("instance '{}' (a second one needs its own --name)", instance.name()))
}

/// The default is a convenience: when its TCP port is taken, the unix socket still serves.
fn open_default_tcp(now: Instant) -> Option<Door> {
    let address = HostPort { host: "127.0.0.1".to_owned(), port: DEFAULT_TCP };
    let spec = PortSpec { kind: PortKind::Tcp(address), options: PortOptions::default() };
    match Door::open(&spec, now) {
        Ok(door) => Some(door),
        Err(error) => {
            warn!("{error:#}; going on without TCP ('tcp:PORT' serves another, --no-tcp none)");
            None
        }
    }
}

/// Each port is a descriptor, and the soft limit is made for programs that use `select`.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!("can't raise the limit of open files: {error}");
    }
}
