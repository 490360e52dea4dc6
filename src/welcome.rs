//! What a new user sees first: the arguments that let a QEMU join, ready to paste.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{self, Path};

use hub_protocol::l2tpv3::L2tpv3;

use crate::bridge::Mode;
use crate::config::{Group, HostPort, Interface, Peers, PortKind, UnixName, Vde};
use crate::instance::Macs;
use crate::link::interface_address;

/// How to join a hub.
#[derive(Debug)]
pub struct Welcome<'a> {
    /// The instance.
    pub instance: &'a str,
    /// The addresses of its VMs.
    pub macs: &'a Macs,
    /// Hub or switch.
    pub mode: Mode,
    /// Its unix sockets, the one that it always serves first.
    pub unix: &'a [UnixName],
    /// The TCP addresses that it serves.
    pub tcp: &'a [SocketAddr],
    /// What else was asked for.
    pub others: &'a [&'a PortKind],
}

impl fmt::Display for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Hub => "hub",
            Mode::Switch => "switch",
        };
        let mut devices = (1..).map(|n: u32| {
            format!("-device virtio-net-pci,netdev=n0,mac={}", self.macs.of_vm(&n.to_string()))
        });
        let mut line = |f: &mut fmt::Formatter<'_>, netdev: String| {
            writeln!(f, "  {} -netdev {netdev}", devices.next().unwrap_or_default())
        };
        writeln!(
            f,
            "qhub {}: {mode} '{}' is up. To join it, give QEMU",
            env!("CARGO_PKG_VERSION"),
            self.instance
        )?;
        // Twice the first: enough for two guests that ping each other.
        for name in self.unix.first().into_iter().chain(self.unix) {
            line(f, unix_netdev(name))?;
        }
        writeln!(
            f,
            "(QEMU 7.2 or later; to outlive a restart of qhub, add ,reconnect-ms=1000 from 9.2 on, ,reconnect=1 from 8.0 to 9.1)"
        )?;
        for address in self.tcp {
            line(f, tcp_netdev(address))?;
            writeln!(f, "{}", tcp_note(address))?;
        }
        for (netdev, note) in self.others.iter().filter_map(|kind| datagram_netdev(kind)) {
            line(f, netdev)?;
            writeln!(f, "{note}")?;
        }
        writeln!(f, "Each VM needs its own mac=; 'qhub mac' makes more. Ctrl-C stops.")
    }
}

fn escaped(text: &str) -> String {
    text.replace(',', ",,")
}

fn escaped_path(path: &Path) -> String {
    escaped(&path.display().to_string())
}

fn unix_netdev(name: &UnixName) -> String {
    match name {
        UnixName::Path(path) => format!("stream,id=n0,addr.type=unix,addr.path={}", escaped_path(path)),
        UnixName::Abstract(name) => {
            format!("stream,id=n0,addr.type=unix,addr.path={},addr.abstract=on", escaped(name))
        }
    }
}

/// The other end of a port that is no stream, and who may be there; `None` where QEMU has none.
fn datagram_netdev(kind: &PortKind) -> Option<(String, &'static str)> {
    match kind {
        PortKind::Udp { local, peers } => {
            let anywhere = if is_loopback(&local.host) { "127.0.0.1" } else { "0.0.0.0" };
            let own = peers.only().map_or((anywhere, 0), |remote| (remote.host.as_str(), remote.port));
            Some((inet_dgram_netdev(own, local)?, udp_note(peers)))
        }
        PortKind::Dgram { path, peers, .. } => {
            let path = escaped_path(path);
            let own = peers.only().map_or_else(|| format!("{path}.vm1"), |remote| escaped_path(remote));
            Some((
                format!("dgram,id=n0,local.type=unix,local.path={own},remote.type=unix,remote.path={path}"),
                "(QEMU 7.2 or later; each VM needs its own local.path)",
            ))
        }
        PortKind::L2tpv3 { local, remote, framing } => Some((
            l2tpv3_netdev(local, remote, framing),
            "(any QEMU; before 10 it cuts frames at 2048 octets, then at 16384: see max-frame=)",
        )),
        PortKind::Mcast(group) => {
            Some((mcast_netdev(group)?, "(any QEMU; everybody on the bus hears everything)"))
        }
        PortKind::Vde(Vde { folder, port_group: None, .. }) => Some((
            format!(
                "vde,id=n0,sock={}",
                escaped_path(&path::absolute(folder).unwrap_or_else(|_| folder.clone()))
            ),
            "(any QEMU with VDE; so join vde_plug and what else knows VDE)",
        )),
        PortKind::Vde(_)
        | PortKind::Unix { .. }
        | PortKind::Tcp(_)
        | PortKind::Connect(_)
        | PortKind::Fd(_)
        | PortKind::Tap(_)
        | PortKind::Bridge(_)
        | PortKind::Macvtap(_)
        | PortKind::Packet(_) => None,
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The hub's address as somebody at `host` is to write it.
fn address_from<'a>(hub: &'a str, host: &str) -> &'a str {
    match hub {
        "0.0.0.0" | "::" if !is_loopback(host) => "HUB",
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        _ => hub,
    }
}

/// QEMU knows datagrams over IPv4 only.
fn inet_dgram_netdev((host, port): (&str, u16), hub: &HostPort) -> Option<String> {
    if hub.host.contains(':') {
        return None;
    }
    let there = address_from(&hub.host, host);
    Some(format!(
        "dgram,id=n0,local.type=inet,local.host={host},local.port={port},remote.type=inet,remote.host={there},remote.port={}",
        hub.port
    ))
}

fn udp_note(peers: &Peers<HostPort>) -> &'static str {
    match peers {
        Peers::One(_) => "(QEMU 7.2 or later; whoever can send from this address may join)",
        Peers::Any(_) => "(QEMU 7.2 or later; whoever reaches this UDP port may join)",
    }
}

fn mcast_netdev(group: &Group) -> Option<String> {
    let local = match &group.interface {
        Some(Interface::Address(address)) => Some(address.to_string()),
        Some(Interface::Name(name)) => interface_address(name).map(|address| address.to_string()),
        None => None,
    };
    let local = local.map_or_else(String::new, |address| format!(",localaddr={address}"));
    group.address.is_ipv4().then(|| format!("socket,id=n0,mcast={}{local}", group.address))
}

/// What the hub sends is what QEMU receives.
fn l2tpv3_netdev(hub: &HostPort, qemu: &HostPort, framing: &L2tpv3) -> String {
    let mut netdev = format!(
        "l2tpv3,id=n0,src={},dst={},udp=on,srcport={},dstport={},txsession={:#x},rxsession={:#x}",
        qemu.host,
        address_from(&hub.host, &qemu.host),
        qemu.port,
        hub.port,
        framing.rx_session.unwrap_or(framing.tx_session),
        framing.tx_session
    );
    if let (Some(tx), Some(rx)) = (framing.tx_cookie, framing.rx_cookie) {
        netdev += &format!(",txcookie={rx:#x},rxcookie={tx:#x}");
    }
    if qemu.host.contains(':') {
        netdev += ",ipv6=on";
    }
    if framing.has_long_cookies {
        netdev += ",cookie64=on";
    }
    if framing.has_counter {
        netdev += ",counter=on";
    }
    netdev
}

/// The old form where it can be used: any QEMU has it, but it knows no IPv6.
fn tcp_netdev(address: &SocketAddr) -> String {
    let (host, port) = (address.ip(), address.port());
    match host {
        IpAddr::V4(host) if host.is_unspecified() => format!("socket,id=n0,connect=127.0.0.1:{port}"),
        IpAddr::V4(host) => format!("socket,id=n0,connect={host}:{port}"),
        IpAddr::V6(host) if host.is_unspecified() => {
            format!("stream,id=n0,addr.type=inet,addr.host=::1,addr.port={port}")
        }
        IpAddr::V6(host) => format!("stream,id=n0,addr.type=inet,addr.host={host},addr.port={port}"),
    }
}

fn tcp_note(address: &SocketAddr) -> &'static str {
    match (address, address.ip().is_loopback()) {
        (SocketAddr::V4(_), true) => "(any QEMU; any user of this host may join a TCP port)",
        (SocketAddr::V4(_), false) => "(any QEMU; anybody who reaches this address may join)",
        (SocketAddr::V6(_), true) => "(QEMU 7.2 or later; any user of this host may join a TCP port)",
        (SocketAddr::V6(_), false) => "(QEMU 7.2 or later; anybody who reaches this address may join)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(unix: &[UnixName], tcp: &[&str]) -> String {
        let tcp: Vec<SocketAddr> = tcp.iter().map(|address| address.parse().unwrap()).collect();
        Welcome { instance: "lab", macs: &Macs::of("lab"), mode: Mode::Switch, unix, tcp: &tcp, others: &[] }
            .to_string()
    }

    fn own() -> UnixName {
        UnixName::Path("/run/a,b/qhub.sock".into())
    }

    #[test]
    fn lines_have_addresses_of_their_own_and_escaped_commas() {
        let text =
            text(&[own(), UnixName::Abstract("lab".into())], &["127.0.0.1:5555", "[::1]:7", "0.0.0.0:9"]);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("-netdev")).collect();
        let ends = [
            "addr.path=/run/a,,b/qhub.sock",
            "addr.path=/run/a,,b/qhub.sock",
            "addr.path=lab,addr.abstract=on",
            "-netdev socket,id=n0,connect=127.0.0.1:5555",
            "addr.host=::1,addr.port=7",
            "-netdev socket,id=n0,connect=127.0.0.1:9",
        ];
        assert_eq!(lines.len(), ends.len());
        for (line, end) in lines.iter().zip(ends) {
            assert!(line.ends_with(end), "{line}");
        }
        let mut macs: Vec<&str> =
            lines.iter().filter_map(|line| line.split("mac=").nth(1)).map(|rest| &rest[..17]).collect();
        macs.sort_unstable();
        macs.dedup();
        assert_eq!(macs.len(), ends.len());
    }

    #[test]
    fn datagram_ports_have_their_other_end() {
        for (port, netdev) in [
            (
                "udp:5000",
                "dgram,id=n0,local.type=inet,local.host=127.0.0.1,local.port=0,remote.type=inet,remote.host=127.0.0.1,remote.port=5000",
            ),
            (
                "udp:10.0.0.1:5000,remote=10.0.0.2:5001",
                "dgram,id=n0,local.type=inet,local.host=10.0.0.2,local.port=5001,remote.type=inet,remote.host=10.0.0.1,remote.port=5000",
            ),
            (
                "dgram:/a,,b",
                "dgram,id=n0,local.type=unix,local.path=/a,,b.vm1,remote.type=unix,remote.path=/a,,b",
            ),
            (
                "dgram:/a,remote=/b",
                "dgram,id=n0,local.type=unix,local.path=/b,remote.type=unix,remote.path=/a",
            ),
            (
                "udp:0.0.0.0:5000",
                "dgram,id=n0,local.type=inet,local.host=0.0.0.0,local.port=0,remote.type=inet,remote.host=HUB,remote.port=5000",
            ),
            ("mcast:239.0.0.1:7", "socket,id=n0,mcast=239.0.0.1:7"),
            ("mcast:239.0.0.1:7,iface=lo", "socket,id=n0,mcast=239.0.0.1:7,localaddr=127.0.0.1"),
            ("mcast:239.0.0.1:7,iface=127.0.0.1", "socket,id=n0,mcast=239.0.0.1:7,localaddr=127.0.0.1"),
            (
                "l2tpv3:5000,remote=127.0.0.1:5001,txsession=1,rxsession=2,txcookie=3,rxcookie=4,cookie64=on,counter=on",
                "l2tpv3,id=n0,src=127.0.0.1,dst=127.0.0.1,udp=on,srcport=5001,dstport=5000,txsession=0x2,rxsession=0x1,txcookie=0x4,rxcookie=0x3,cookie64=on,counter=on",
            ),
        ] {
            let spec: crate::config::PortSpec = port.parse().unwrap();
            assert_eq!(datagram_netdev(&spec.kind).unwrap().0, netdev);
        }
        for port in ["udp:[::1]:5000", "mcast:[ff15::1]:5000"] {
            let spec: crate::config::PortSpec = port.parse().unwrap();
            assert_eq!(datagram_netdev(&spec.kind), None, "QEMU has no IPv6 there");
        }
    }

    #[test]
    fn it_says_who_may_join() {
        assert!(!text(&[own()], &[]).contains("may join"));
        assert!(text(&[own()], &["127.0.0.1:1"]).contains("any user of this host may join"));
        assert!(text(&[own()], &["0.0.0.0:1"]).contains("anybody who reaches this address may join"));
        assert!(text(&[own()], &["[::]:1"]).contains("anybody who reaches this address may join"));
    }
}
