//! The hosts that a device joins by a TAP each, and the wiring in between.
//!
//! ```text
//! namespace of a host      namespace of the device     namespace of a host
//!   tap1 10.66.0.1/16 <------ the device's process ------> tap2 10.66.0.2/16
//! ```
//!
//! qhub makes its TAPs itself, in the namespaces that it is told. The others find theirs: a relay where the hosts
//! are; `vde_switch`, which knows nothing of namespaces, in its own, from where they are moved once it has them
//! open. A bridge of the kernel has a pair of veth interfaces for each host instead.

use std::net::{Ipv4Addr, UdpSocket};
use std::process;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, io};

use anyhow::{Context, bail};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::device::Kind;
use crate::netns::Namespace;
use crate::socket::{Address, patiently};

/// How the addresses of hosts begin, and how much of them that is.
const NETWORK: [u8; 2] = [10, 66];
const PREFIX: &str = "/16";

/// The interface by which a host is joined, in qhub's words: its name and namespace, and the host's address.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    pub(crate) name: String,
    pub(crate) netns: String,
    pub(crate) ip: Ipv4Addr,
}

impl Tap {
    /// One that nobody else has.
    pub(crate) fn new(number: u16) -> Self {
        let ([a, b], [c, d]) = (NETWORK, number.to_be_bytes());
        Self {
            name: format!("tap{number}"),
            netns: format!("qb{}-{number}", process::id()),
            ip: Ipv4Addr::new(a, b, c, d),
        }
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},netns={},addr={}{PREFIX}", self.name, self.netns, self.ip)
    }
}

impl FromStr for Tap {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, rest) = text.split_once(",netns=").context("no namespace")?;
        let (netns, ip) = rest.split_once(",addr=").context("no address")?;
        let ip = ip.trim_end_matches(PREFIX).parse()?;
        Ok(Self { name: name.to_owned(), netns: netns.to_owned(), ip })
    }
}

/// A host, which has a namespace to itself.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) tap: Tap,
}

impl Host {
    fn new(tap: Tap) -> anyhow::Result<Self> {
        Ok(Self { namespace: Namespace::new(&tap.netns)?, tap })
    }

    fn make_tap(&self) -> anyhow::Result<()> {
        self.namespace.ip(&format!("tuntap add {} mode tap", self.tap.name))
    }

    fn bring_up(&self) -> anyhow::Result<()> {
        let Tap { name, ip, .. } = &self.tap;
        self.namespace.ip(&format!("address add {ip}{PREFIX} dev {name}"))?;
        self.namespace.ip(&format!("link set {name} up"))
    }
}

/// The hosts of one device.
pub(crate) struct Hosts {
    ends: Vec<Host>,
    /// Where the device is.
    middle: Namespace,
}

impl Hosts {
    /// Those that are joined by a TAP, if there are any, and what the device is to find there.
    pub(crate) fn new(kind: Kind, addresses: &[Address]) -> anyhow::Result<Option<Self>> {
        let ends: Vec<Host> =
            addresses.iter().filter_map(Address::tap).cloned().map(Host::new).collect::<Result<_, _>>()?;
        let Some(first) = ends.first() else {
            return Ok(None);
        };
        let middle = Namespace::new(format!("{}m", first.tap.netns))?;
        let hosts = Self { ends, middle };
        hosts.prepare(kind)?;
        Ok(Some(hosts))
    }

    pub(crate) fn middle(&self) -> &Namespace {
        &self.middle
    }

    pub(crate) fn ends(&self) -> &[Host] {
        &self.ends
    }

    fn prepare(&self, kind: Kind) -> anyhow::Result<()> {
        match kind {
            Kind::Switch | Kind::Plain | Kind::Hub => Ok(()),
            Kind::Relay | Kind::Passthrough => self.ends.iter().try_for_each(|host| {
                host.make_tap()?;
                host.bring_up()
            }),
            Kind::Vde => self.ends.iter().try_for_each(|host| {
                let name = &host.tap.name;
                self.middle.ip(&format!("tuntap add {name} mode tap"))?;
                // It is running as soon as somebody has it open.
                self.middle.ip(&format!("link set {name} up"))
            }),
            Kind::Bridge => self.build_bridge(),
            Kind::Qemu | Kind::Bus => bail!("{kind} joins no hosts"),
        }
    }

    fn build_bridge(&self) -> anyhow::Result<()> {
        self.middle.ip("link add bridge type bridge")?;
        self.middle.ip("link set bridge up")?;
        for host in &self.ends {
            let Tap { name, netns, .. } = &host.tap;
            self.middle.ip(&format!("link add {name} type veth peer name {name} netns {netns}"))?;
            self.middle.ip(&format!("link set {name} master bridge up"))?;
            host.bring_up()?;
        }
        Ok(())
    }

    /// Does what can only be done once the device runs, and returns when the hosts are joined.
    pub(crate) fn settle(&self, kind: Kind) -> anyhow::Result<()> {
        if kind == Kind::Vde {
            for host in &self.ends {
                let Tap { name, netns, .. } = &host.tap;
                wait_for(&self.middle, name)?;
                self.middle.ip(&format!("link set {name} netns {netns}"))?;
                host.bring_up()?;
            }
        }
        self.ends.iter().try_for_each(|host| wait_for(&host.namespace, &host.tap.name))?;
        if let [one, other] = &self.ends[..] {
            let sockets = (udp_socket(one)?, udp_socket(other)?);
            arrives(&sockets.0, &sockets.1)?;
            arrives(&sockets.1, &sockets.0)?;
        }
        Ok(())
    }
}

/// Waits until an interface is up and has somebody at its other end.
fn wait_for(namespace: &Namespace, interface: &str) -> anyhow::Result<()> {
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let is_running = || {
        let mut all = getifaddrs()?;
        all.any(|one| one.interface_name == interface && one.flags.contains(wanted))
            .then_some(())
            .ok_or_else(|| io::Error::other("it is not up, or has nobody at its other end"))
    };
    namespace
        .within(|| Ok(patiently(is_running)?))
        .with_context(|| format!("{interface} does not run in {}", namespace.name()))
}

fn udp_socket(host: &Host) -> anyhow::Result<UdpSocket> {
    // The device may give the host its address.
    let socket = host.namespace.within(|| Ok(patiently(|| UdpSocket::bind((host.tap.ip, 0)))?));
    let socket = socket.with_context(|| format!("{} has no address", host.tap))?;
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    Ok(socket)
}

/// Returns once datagrams pass from `one` to `other`.
fn arrives(one: &UdpSocket, other: &UdpSocket) -> anyhow::Result<()> {
    let to = other.local_addr()?;
    let passes = || {
        one.send_to(b"probe", to)?;
        other.recv(&mut [0; 8])
    };
    patiently(passes).with_context(|| format!("{to} cannot be reached"))?;
    Ok(())
}
