//! The devices under test: how each is started, where it is joined, and what it costs.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::hosts::Hosts;
use crate::lab::Lab;
use crate::process::{Process, SETTLE, exec, role};
use crate::socket::{Address, Transport};

const QEMU: &str = "qemu-system-x86_64";
const VDE_SWITCH: &str = "vde_switch";

/// A kind of device under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// One thread that reads one socket and writes the other.
    Relay,
    /// The same between two TAPs, with whole TCP segments.
    Passthrough,
    /// QEMU's own hub.
    Qemu,
    /// qhub, a learning switch.
    Switch,
    /// qhub, with TAPs that get and give frames as they go on a wire.
    Plain,
    /// qhub, repeating every frame.
    Hub,
    /// vde2's switch.
    Vde,
    /// The kernel's bridge.
    Bridge,
    /// Nobody in the middle: a multicast group.
    Bus,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Relay => "relay",
            Self::Passthrough => "relay, offload",
            Self::Qemu => "QEMU's hub",
            Self::Switch => "qhub",
            Self::Plain => "qhub, offload=off",
            Self::Hub => "qhub --hub",
            Self::Vde => "vde_switch",
            Self::Bridge => "kernel bridge",
            Self::Bus => "multicast bus",
        })
    }
}

impl Kind {
    /// Whether somebody is in the middle whose processor time can be told from that of the ends.
    pub(crate) fn is_process(self) -> bool {
        match self {
            Self::Relay
            | Self::Passthrough
            | Self::Qemu
            | Self::Switch
            | Self::Plain
            | Self::Hub
            | Self::Vde => true,
            Self::Bridge | Self::Bus => false,
        }
    }
}

/// How a device is to be started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// That of the first port, and that of the others.
    pub(crate) transports: [Transport; 2],
    /// Ports that are going to be used.
    pub(crate) ports: usize,
    /// The relay: both ways.
    pub(crate) duplex: bool,
    /// The processor to run on.
    pub(crate) cpu: Option<usize>,
}

/// A device under test.
pub(crate) struct Device {
    /// A bus and the kernel's bridge have none.
    process: Option<Process>,
    hosts: Option<Hosts>,
    addresses: Vec<Address>,
    log: PathBuf,
}

impl Device {
    pub(crate) fn start(lab: &Lab, kind: Kind, setup: Setup) -> anyhow::Result<Self> {
        let [first, others] = setup.transports;
        let mut transports = vec![others; setup.ports];
        transports[0] = first;
        match kind {
            Kind::Relay | Kind::Passthrough | Kind::Qemu => {}
            // But every host has a TAP to itself.
            Kind::Switch | Kind::Plain | Kind::Hub | Kind::Vde | Kind::Bridge | Kind::Bus => {
                transports.dedup_by(|one, other| one == other && *one != Transport::Tap);
            }
        }
        let address = |transport| lab.address(transport);
        let addresses: Vec<Address> = transports.into_iter().map(address).collect::<Result<_, _>>()?;
        let hosts = Hosts::new(kind, &addresses)?;
        let log = lab.file();
        let process = if kind.is_process() {
            let spawn = || spawn(lab, kind, setup, &addresses, File::create(&log)?);
            Some(hosts.as_ref().map_or_else(spawn, |hosts| hosts.middle().within(spawn))?)
        } else {
            None
        };
        let device = Self { process, hosts, addresses, log };
        device.blame(device.hosts.as_ref().map_or(Ok(()), |hosts| hosts.settle(kind)))?;
        Ok(device)
    }

    /// Those that it joins.
    pub(crate) fn hosts(&self) -> anyhow::Result<&Hosts> {
        self.hosts.as_ref().context("it joins no hosts")
    }

    /// Where the `n`th port is joined.
    pub(crate) fn port(&self, n: usize) -> &Address {
        &self.addresses[n.min(self.addresses.len() - 1)]
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.process.as_ref().map(|process| process.0.id()).context("it is no process")
    }

    /// Whether its senders have to make sure that it is there.
    pub(crate) fn carries_datagrams(&self) -> bool {
        self.addresses.iter().any(Address::is_datagram)
    }

    /// Processor time used so far by all threads.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let mut total = Duration::ZERO;
        if self.process.is_none() {
            return Ok(total);
        }
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()?))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let running = text.split_whitespace().next().context("schedstat is empty")?;
            total += Duration::from_nanos(running.parse()?);
        }
        Ok(total)
    }

    /// The most memory that was ever resident, in bytes.
    pub(crate) fn peak_memory(&self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024)
    }

    /// Gives what the device has said as the reason of a failure.
    pub(crate) fn blame<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        result.with_context(|| {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            format!("the device said: {}", said.lines().last().unwrap_or("nothing"))
        })
    }
}

fn spawn(lab: &Lab, kind: Kind, setup: Setup, addresses: &[Address], log: File) -> anyhow::Result<Process> {
    let mut command = command(lab, kind, setup, addresses)?;
    command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
    match kind {
        Kind::Qemu => {
            let mut process = Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
            wait_for_listeners(&mut process.0)?;
            Ok(process)
        }
        // It ends with its standard input.
        Kind::Vde => Ok(Process(command.stdin(Stdio::piped()).spawn()?)),
        Kind::Relay
        | Kind::Passthrough
        | Kind::Switch
        | Kind::Plain
        | Kind::Hub
        | Kind::Bridge
        | Kind::Bus => Ok(Process(command.spawn()?)),
    }
}

fn command(lab: &Lab, kind: Kind, setup: Setup, addresses: &[Address]) -> anyhow::Result<Command> {
    let mut command;
    match kind {
        Kind::Relay | Kind::Passthrough => {
            let [from, to @ ..] = addresses else { bail!("a relay joins two at least") };
            command = role(setup.cpu)?;
            command.args(["relay", "--from", &from.to_string()]);
            command.args(to.iter().flat_map(|to| ["--to".to_owned(), to.to_string()]));
            command.args(setup.duplex.then_some("--duplex"));
            command.args((kind == Kind::Passthrough).then_some("--offload"));
        }
        Kind::Qemu => {
            command = exec(setup.cpu, QEMU)?;
            command.args(["-M", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]);
            for (n, address) in addresses.iter().enumerate() {
                let address = match address {
                    Address::Unix(path) => format!("addr.type=unix,addr.path={}", path.display()),
                    Address::Tcp(at) => {
                        format!("addr.type=inet,addr.host={},addr.port={}", at.ip(), at.port())
                    }
                    Address::Dgram(_)
                    | Address::Udp(_)
                    | Address::Mcast(_)
                    | Address::Vde(_)
                    | Address::Tap(_) => bail!("{address} is no stream"),
                };
                command.args(["-netdev", &format!("stream,id=s{n},server=on,{address}")]);
                command.args(["-netdev", &format!("hubport,id=h{n},hubid=0,netdev=s{n}")]);
            }
        }
        Kind::Switch | Kind::Plain | Kind::Hub => {
            command = exec(setup.cpu, lab.hub())?;
            command.args(["run", "--no-tcp", "--name", &format!("bench-{}", process::id())]);
            command.args((kind == Kind::Hub).then_some("--hub"));
            command.args(addresses.iter().map(|address| match address.tap() {
                Some(_) if kind == Kind::Plain => format!("{address},offload=off"),
                _ => address.to_string(),
            }));
            // It is to stay who it is.
            command.env("XDG_RUNTIME_DIR", lab.folder()).env_remove("SUDO_USER");
        }
        Kind::Vde => {
            command = exec(setup.cpu, VDE_SWITCH)?;
            command.args(["--rcfile", "/dev/null"]);
            for tap in addresses.iter().filter_map(Address::tap) {
                command.args(["--tap", &tap.name]);
            }
            // It has a folder even if nobody looks there.
            let folder = addresses.iter().find_map(Address::vde).map_or_else(|| lab.file(), Path::to_owned);
            command.arg("--sock").arg(folder);
        }
        Kind::Bridge | Kind::Bus => bail!("a {kind} is no program"),
    }
    Ok(command)
}

/// QEMU 7.2 crashes on a frame for a netdev of which it has not noticed yet that it listens. It notices in
/// its main loop, which runs when it answers a command, and soon after that.
fn wait_for_listeners(qemu: &mut Child) -> anyhow::Result<()> {
    let mut stdin = qemu.stdin.take().context("standard input is a pipe")?;
    stdin.write_all(b"{\"execute\": \"qmp_capabilities\"}\n")?;
    let stdout = BufReader::new(qemu.stdout.take().context("standard output is a pipe")?);
    for line in stdout.lines() {
        if line?.contains("return") {
            thread::sleep(SETTLE);
            return Ok(());
        }
    }
    bail!("QEMU ended before it was ready")
}

/// What QEMU says that it is, if it is there.
pub(crate) fn qemu_version() -> Option<String> {
    version(Path::new(QEMU))
}

/// What vde2's switch says that it is, if it is there.
pub(crate) fn vde_version() -> Option<String> {
    version(Path::new(VDE_SWITCH))
}

/// The first line that a program says about itself.
pub(crate) fn version(program: &Path) -> Option<String> {
    let said = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&said.stdout).lines().next().map(str::to_owned)
}
