//! `qhub run`: opens what was asked for, says how to join, and turns the hub until a signal ends it.

use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use log::{info, warn};
use mio::Token;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::User;

use crate::cli::RunArgs;
use crate::config::{HostPort, Owner, PortKind, PortOptions, PortSpec, UnixName};
use crate::hub::{self, Door, Hub, HubConfig};
use crate::instance::{Instance, Macs};
use crate::logging::Log;
use crate::privilege;
use crate::signals::Signals;
use crate::turn::{self, Companion};
use crate::welcome::Welcome;

/// Octets of memory for all egress queues together.
pub(crate) const QUEUE_MEMORY: usize = 256 << 20;

/// Ports that only root may serve.
const PRIVILEGED: Range<u16> = 1..1024;

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
    let mut doors = open_all(&inherited, now)?;
    let user = privilege::successor(args.user.as_deref())?;
    let macs = Macs::of(&args.name);
    let (privileged, named): (Vec<_>, Vec<_>) = named.into_iter().partition(|spec| needs_root(&spec.kind));
    for spec in privileged {
        doors.push(Door::open(&prepared(spec, user.as_ref(), &macs), now)?);
    }
    privilege::give_up(user.as_ref())?;
    let log = Log::start(args.log_filter()).context("start to log")?;
    if let Some(user) = &user {
        info!(user = user.name.as_str(); "root is given up");
    }
    let result = serve(args, doors, &named, now);
    log.flush();
    result
}

/// Only a signal ends it.
struct Alone;

impl Companion for Alone {
    fn look(&mut self, _hub: &Hub, _now: Instant) -> bool {
        false
    }
}

/// May only root open it? The others are to belong to the user.
fn needs_root(kind: &PortKind) -> bool {
    match kind {
        PortKind::Tap(_) | PortKind::Bridge(_) | PortKind::Macvtap(_) | PortKind::Packet(_) => true,
        PortKind::Tcp(local) | PortKind::Udp { local, .. } | PortKind::L2tpv3 { local, .. } => {
            PRIVILEGED.contains(&local.port)
        }
        PortKind::Mcast(group) => PRIVILEGED.contains(&group.address.port()),
        PortKind::Unix { .. }
        | PortKind::Connect(_)
        | PortKind::Fd(_)
        | PortKind::Dgram { .. }
        | PortKind::Vde(_) => false,
    }
}

/// `spec`, with what depends on who runs the hub.
fn prepared(spec: &PortSpec, user: Option<&User>, macs: &Macs) -> PortSpec {
    let mut spec = spec.clone();
    let owner = user.map(|user| Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() });
    if let PortKind::Tap(tap) = &mut spec.kind {
        tap.owner = owner;
    } else if let PortKind::Bridge(bridge) = &mut spec.kind {
        bridge.user = owner;
    } else if let PortKind::Macvtap(macvtap) = &mut spec.kind {
        macvtap.mac = Some(macs.of_vm(&format!("macvtap {}", macvtap.place)));
    }
    spec
}

fn serve(args: &RunArgs, mut doors: Vec<Door>, named: &[&PortSpec], now: Instant) -> Result<()> {
    raise_file_limit();
    let config = HubConfig { bridge: args.bridge(), max_ports: args.max_ports(), memory: QUEUE_MEMORY };
    let mut hub = Hub::new(config).context("make the poll")?;
    // From here on a signal leaves no socket file behind.
    let mut signals = Signals::catch(hub.registry(), Token(hub::OUTSIDE))?;
    let instance = Instance::open(&args.name)?;
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
    let others: Vec<&PortKind> = args.ports.iter().map(|spec| &spec.kind).collect();
    let welcome = Welcome {
        instance: instance.name(),
        macs: &Macs::of(&args.name),
        mode: args.bridge().mode,
        unix: &unix,
        tcp: &tcp,
        others: &others,
    };
    print_aside(welcome.to_string());
    turn::until_stopped(&mut hub, &mut signals, &mut Alone).map(drop)
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
        | PortKind::Mcast(_)
        | PortKind::Vde(_)
        | PortKind::Tap(_)
        | PortKind::Bridge(_)
        | PortKind::Macvtap(_)
        | PortKind::Packet(_) => None,
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
pub(crate) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!("can't raise the limit of open files: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_root_may_open_is_opened_first() {
        for (port, is_privileged) in [
            ("tap:", true),
            ("bridge:br0", true),
            ("macvtap:eth0", true),
            ("packet:eth0", true),
            ("tcp:0", false),
            ("tcp:1", true),
            ("tcp:1023", true),
            ("tcp:1024", false),
            ("udp:1023", true),
            ("udp:1024", false),
            ("l2tpv3:1023,remote=10.0.0.1:1,txsession=1", true),
            ("l2tpv3:1024,remote=10.0.0.1:1,txsession=1", false),
            ("mcast:239.0.0.1:1023", true),
            ("mcast:239.0.0.1:1024", false),
            ("unix:/a", false),
            ("dgram:/a", false),
            ("connect:tcp:a:1", false),
        ] {
            let spec: PortSpec = port.parse().unwrap();
            assert_eq!(needs_root(&spec.kind), is_privileged, "{port}");
        }
    }
}
