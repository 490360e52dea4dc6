//! Every way in which a QEMU can be attached to a datagram port.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use tempfile::TempDir;

use crate::common::daemon::Daemon;
use crate::common::hub::utf8;
use crate::common::net::{free_group, free_udp_port};
use crate::common::qemu::{Relay, Version};
use crate::common::wire::FRAME_MAX;

/// The longest payload of UDP.
pub(super) const UDP_MAX: usize = 65_507;

/// The longest frame that QEMU receives by L2TPv3; it passes on the beginning of a longer one.
fn l2tpv3_max(version: Version) -> usize {
    match version {
        Version::Installed => 2048,
        Version::Ten => 16_384,
    }
}

/// What a hub and a QEMU are given to meet each other.
pub(super) struct Form {
    /// The hub's port.
    pub(super) port: String,
    /// What follows `-netdev`.
    pub(super) netdev: String,
    /// The hub's socket, as its `fd:0`, and QEMU's.
    pub(super) pair: Option<(OwnedFd, OwnedFd)>,
    /// The longest frame that QEMU sends, and that it receives.
    pub(super) longest: (usize, usize),
    /// Does QEMU hear what it sends itself?
    pub(super) is_bus: bool,
    /// Must QEMU speak first?
    pub(super) is_met: bool,
}

impl Form {
    fn new(port: String, netdev: &str) -> Self {
        let netdev = format!("{netdev},id=s0");
        Self { port, netdev, pair: None, longest: (FRAME_MAX, FRAME_MAX), is_bus: false, is_met: false }
    }

    fn over_udp(self) -> Self {
        Self { longest: (UDP_MAX, UDP_MAX), ..self }
    }

    fn bus(self) -> Self {
        Self { is_bus: true, ..self.over_udp() }
    }

    /// `netdev` is given the hub's UDP port and QEMU's.
    pub(super) fn udp(netdev: fn(u16, u16) -> String) -> Self {
        let (ours, theirs) = (free_udp_port(), free_udp_port());
        Self { is_met: true, ..Self::new(format!("udp:{ours}"), &netdev(ours, theirs)).over_udp() }
    }

    /// The same, with a port that has no other peer.
    pub(super) fn udp_alone(netdev: fn(u16, u16) -> String) -> Self {
        let (ours, theirs) = (free_udp_port(), free_udp_port());
        let port = format!("udp:{ours},remote=127.0.0.1:{theirs}");
        Self::new(port, &netdev(ours, theirs)).over_udp()
    }

    /// Another QEMU at the UDP port of a form.
    pub(super) fn another_of(form: &Self) -> Self {
        let ours = form.port.strip_prefix("udp:").and_then(|port| port.parse().ok());
        let ours = ours.expect("a port for anybody");
        let netdev = dgram_inet(ours, free_udp_port());
        Self { is_met: true, ..Self::new(form.port.clone(), &netdev).over_udp() }
    }

    /// No datagrams: to the unix socket that every instance serves.
    pub(super) fn stream(path: &str) -> Self {
        Self::new(format!("unix:{path}"), &format!("stream,addr.type=unix,addr.path={path}"))
    }

    pub(super) fn unix(folder: &TempDir) -> Self {
        let (ours, netdev) = dgram_unix(folder, "any");
        Self { is_met: true, ..Self::new(format!("dgram:{ours}"), &netdev) }
    }

    pub(super) fn unix_alone(folder: &TempDir) -> Self {
        let (ours, netdev) = dgram_unix(folder, "one");
        Self::new(format!("dgram:{ours},remote={ours}.qemu"), &netdev)
    }

    pub(super) fn inherited() -> Self {
        Self::new("fd:0".to_owned(), "dgram,local.type=fd,local.str=0").with_pair()
    }

    pub(super) fn legacy_inherited() -> Self {
        Self::new("fd:0".to_owned(), "socket,fd=0").with_pair()
    }

    fn with_pair(self) -> Self {
        let (ours, theirs) = UnixDatagram::pair().expect("a socket pair");
        Self { pair: Some((ours.into(), theirs.into())), ..self }
    }

    pub(super) fn legacy_multicast() -> Self {
        let (group, port) = free_group();
        let netdev = format!("socket,mcast={group}:{port},localaddr=127.0.0.1");
        Self::new(format!("mcast:{group}:{port},iface=127.0.0.1"), &netdev).bus()
    }

    pub(super) fn multicast() -> Self {
        let (group, port) = free_group();
        let netdev = format!(
            "dgram,remote.type=inet,remote.host={group},remote.port={port},local.type=inet,local.host=127.0.0.1,local.port=0"
        );
        Self::new(format!("mcast:{group}:{port},iface=lo"), &netdev).bus()
    }

    pub(super) fn l2tpv3(version: Version) -> Self {
        Self::l2tpv3_with(version, "", "", 8)
    }

    pub(super) fn l2tpv3_with_cookies(version: Version) -> Self {
        let cookies = ["txcookie=0x01020304,rxcookie=0xfffefdfc", "txcookie=0xfffefdfc,rxcookie=0x01020304"];
        Self::l2tpv3_with(version, cookies[0], cookies[1], 12)
    }

    pub(super) fn l2tpv3_with_long_cookies_and_counter(version: Version) -> Self {
        let rest = "cookie64=on,counter=on";
        let cookies = ["0x0102030405060708", "0xfffefdfcfbfaf9f8"];
        Self::l2tpv3_with(
            version,
            &format!("txcookie={},rxcookie={},{rest}", cookies[0], cookies[1]),
            &format!("txcookie={},rxcookie={},{rest}", cookies[1], cookies[0]),
            20,
        )
    }

    /// With what either end is given beside its addresses and sessions, and the octets of the header.
    fn l2tpv3_with(version: Version, hub: &str, qemu: &str, header: usize) -> Self {
        let (ours, theirs) = (free_udp_port(), free_udp_port());
        let port = format!("l2tpv3:{ours},remote=127.0.0.1:{theirs},txsession=0xaabbccdd,rxsession=7,{hub}");
        let netdev = format!(
            "l2tpv3,src=127.0.0.1,dst=127.0.0.1,udp=on,srcport={theirs},dstport={ours},txsession=7,rxsession=0xaabbccdd,{qemu}"
        );
        let form = Self::new(port.trim_end_matches(',').to_owned(), netdev.trim_end_matches(','));
        Self { longest: (UDP_MAX - header, l2tpv3_max(version)), ..form }
    }

    /// Starts a hub with all of `ports`, of which one may be of a form with `fd:0`.
    pub(super) fn hub(runtime: &TempDir, ports: &[&str], fd0: Option<OwnedFd>) -> Daemon {
        let stdin = fd0.map_or_else(Stdio::null, Stdio::from);
        let args = [&["--no-tcp"], ports].concat();
        Daemon::launch(runtime.path(), r#"exec "$@""#, &args, stdin).served()
    }

    /// Starts the QEMU.
    pub(super) fn relay(&self, version: Version, fd0: Option<OwnedFd>) -> Relay {
        Relay::start(version, &self.netdev, fd0.map_or_else(Stdio::null, Stdio::from))
    }
}

/// `socket,udp=`, with the hub's port and QEMU's.
pub(super) fn legacy_inet(ours: u16, theirs: u16) -> String {
    format!("socket,udp=127.0.0.1:{ours},localaddr=127.0.0.1:{theirs}")
}

/// The same of `dgram`.
pub(super) fn dgram_inet(ours: u16, theirs: u16) -> String {
    format!(
        "dgram,local.type=inet,local.host=127.0.0.1,local.port={theirs},remote.type=inet,remote.host=127.0.0.1,remote.port={ours}"
    )
}

/// The hub's path, and what QEMU is given.
fn dgram_unix(folder: &TempDir, name: &str) -> (String, String) {
    let ours = utf8(&folder.path().join(name)).to_owned();
    let netdev = format!("dgram,local.type=unix,local.path={ours}.qemu,remote.type=unix,remote.path={ours}");
    (ours, netdev)
}
