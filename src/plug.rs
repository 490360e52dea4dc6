//! `qhub plug`: a segment at the ends of a pipe. `dpipe qhub plug = ssh host qhub plug` joins two.
//!
//! A plug is a hub of two ports, the pipe and whoever is dialled, without doors: it lives as long as both.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use mio::Token;

use crate::bridge::{BridgeConfig, Mode, PortId};
use crate::cli::PlugArgs;
use crate::config::{PortKind, PortOptions, PortSpec, QUEUE_MAX, Remote, UnixName};
use crate::hub::{self, Hub, HubConfig};
use crate::instance::Instance;
use crate::link::{Dialer, Dialled, Peer, PipeLink};
use crate::logging::Log;
use crate::signals::{Request, Signals};
use crate::turn::{self, Companion, Ending};

/// The pipe, and whoever is dialled.
const PORTS: usize = 2;

/// Octets of memory for the queues of both, at their largest.
const QUEUE_MEMORY: usize = PORTS * QUEUE_MAX;

/// Stations whose fights are warned about.
const STATIONS: usize = 1024;
const AGEING: Duration = Duration::from_secs(300);

/// The poll's name for the attempt to dial; the signals have the two in front of it.
const DIALLING: Token = Token(hub::OUTSIDE + 2);

/// A plug is over with either of its sides.
struct BothSides;

impl Companion for BothSides {
    fn look(&mut self, hub: &Hub, _now: Instant) -> bool {
        hub.first_departure().is_some()
    }
}

/// Joins stdin and stdout to a segment until either side ends, or SIGINT or SIGTERM comes.
///
/// # Errors
///
/// When there is nobody to join, or the plug ends by anything but the end of stdin or a signal.
pub fn run(args: &PlugArgs) -> Result<()> {
    let (input, output) = standard()?;
    let pipe = PipeLink::new(input, output, args.framing)?;
    let log = Log::start(args.log_filter()).context("start to log")?;
    let result = join(args, pipe);
    log.flush();
    result
}

/// Descriptors of our own for stdin and stdout.
fn standard() -> Result<(OwnedFd, OwnedFd)> {
    let (input, output) = (io::stdin(), io::stdout());
    for (name, is_terminal) in [("stdin", input.is_terminal()), ("stdout", output.is_terminal())] {
        if is_terminal {
            bail!("{name} is a terminal; a plug is for a pipe: 'dpipe qhub plug = ssh HOST qhub plug'");
        }
    }
    Ok((input.as_fd().try_clone_to_owned()?, output.as_fd().try_clone_to_owned()?))
}

fn join(args: &PlugArgs, pipe: PipeLink) -> Result<()> {
    let bridge = BridgeConfig { mode: Mode::Hub, ageing: AGEING, fdb_max: STATIONS };
    let mut hub = Hub::new(HubConfig { bridge, max_ports: PORTS, memory: QUEUE_MEMORY })?;
    let mut signals = Signals::catch(hub.registry(), Token(hub::OUTSIDE))?;
    let spec = place(args)?;
    let dialled = dial(&mut hub, &mut signals, &spec.kind).with_context(|| advice(args, &spec.kind))?;
    let Some(Dialled { link, peer, .. }) = dialled else { return Ok(()) };
    let now = hub::now();
    let options = PortOptions { name: None, ..spec.options.clone() };
    let pipe = hub.attach("pipe", Box::new(pipe), Peer::Unknown, options, now)?;
    let stem = spec.options.name.as_deref().unwrap_or("segment");
    hub.attach(stem, link, peer, spec.options.clone(), now)?;
    match turn::until_stopped(&mut hub, &mut signals, &mut BothSides)? {
        Ending::Asked => Ok(()),
        Ending::Over => outcome(&hub, pipe, &spec.kind),
    }
}

/// What is to be joined.
fn place(args: &PlugArgs) -> Result<PortSpec> {
    if let Some(spec) = &args.port {
        return Ok(spec.clone());
    }
    let socket = UnixName::Path(Instance::find(&args.name)?.socket());
    Ok(PortSpec { kind: PortKind::Connect(Remote::Unix(socket)), options: PortOptions::default() })
}

/// What to do when nobody is there.
fn advice(args: &PlugArgs, kind: &PortKind) -> String {
    if args.port.is_some() {
        return format!("can't join {kind}");
    }
    let name = &args.name;
    format!(
        "no instance '{name}' of qhub runs here; start it with 'qhub --name {name}', or say what to join, as in 'qhub plug connect:unix:PATH' ({kind})"
    )
}

/// Dials once, each address that the peer has; `None` when a signal came first.
fn dial(hub: &mut Hub, signals: &mut Signals, kind: &PortKind) -> Result<Option<Dialled>> {
    let PortKind::Connect(remote) = kind else { bail!("port {kind} joins nobody") };
    let mut dialer = Dialer::new(remote, hub::now())?;
    loop {
        let now = hub::now();
        match dialer.advance(hub.registry(), DIALLING, now) {
            Ok(Some(dialled)) => return Ok(Some(dialled)),
            Ok(None) => {}
            // Many stand before that listener; it will come to us.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => dialer.rest(now),
            Err(error) if dialer.has_tried_all() => return Err(error.into()),
            Err(_) => continue,
        }
        let timeout = dialer.deadline().map(|deadline| deadline.saturating_duration_since(now));
        for token in hub.wait(timeout).context("wait for events")? {
            if token == DIALLING {
                dialer.note();
            }
        }
        if signals.requests().contains(&Request::Stop) {
            return Ok(None);
        }
    }
}

/// What the end of the first port means.
fn outcome(hub: &Hub, pipe: PortId, kind: &PortKind) -> Result<()> {
    let Some(first) = hub.first_departure() else { return Ok(()) };
    match (first.port == pipe, first.kind) {
        (true, io::ErrorKind::UnexpectedEof) => Ok(()),
        (true, io::ErrorKind::BrokenPipe) => Err(anyhow!("stdout is no longer read")),
        (true, io::ErrorKind::InvalidData) => Err(anyhow!("stdin: {}", first.reason)),
        (true, _) => Err(anyhow!("stdin and stdout: {}", first.reason)),
        (false, _) => Err(anyhow!("{kind}: {}", first.reason)),
    }
}
