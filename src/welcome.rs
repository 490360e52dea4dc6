//! What a new user sees first: the arguments that let a QEMU join, ready to paste.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::bridge::Mode;
use crate::config::UnixName;
use crate::instance::Macs;

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
        writeln!(f, "Each VM needs its own mac=; 'qhub mac' makes more. Ctrl-C stops.")
    }
}

fn unix_netdev(name: &UnixName) -> String {
    let escaped = |text: &str| text.replace(',', ",,");
    match name {
        UnixName::Path(path) => {
            format!("stream,id=n0,addr.type=unix,addr.path={}", escaped(&path.display().to_string()))
        }
        UnixName::Abstract(name) => {
            format!("stream,id=n0,addr.type=unix,addr.path={},addr.abstract=on", escaped(name))
        }
    }
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
        Welcome { instance: "lab", macs: &Macs::of("lab"), mode: Mode::Switch, unix, tcp: &tcp }.to_string()
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
    fn it_says_who_may_join() {
        assert!(!text(&[own()], &[]).contains("may join"));
        assert!(text(&[own()], &["127.0.0.1:1"]).contains("any user of this host may join"));
        assert!(text(&[own()], &["0.0.0.0:1"]).contains("anybody who reaches this address may join"));
        assert!(text(&[own()], &["[::]:1"]).contains("anybody who reaches this address may join"));
    }
}
