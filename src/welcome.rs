//! What a new user sees first: the arguments that let a QEMU join, ready to paste.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use crate::bridge::Mode;
use crate::instance::Macs;

/// Lines for VMs on the unix socket: enough for two that ping each other.
const UNIX_LINES: usize = 2;

/// How to join a hub.
#[derive(Debug)]
pub struct Welcome<'a> {
    /// The instance.
    pub instance: &'a str,
    /// The addresses of its VMs.
    pub macs: &'a Macs,
    /// Hub or switch.
    pub mode: Mode,
    /// Its unix socket.
    pub socket: &'a Path,
    /// The TCP addresses that it serves.
    pub tcp: &'a [SocketAddr],
}

impl Welcome<'_> {
    fn device(&self, n: usize) -> String {
        format!("-device virtio-net-pci,netdev=n0,mac={}", self.macs.of_vm(&n.to_string()))
    }
}

impl fmt::Display for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Hub => "hub",
            Mode::Switch => "switch",
        };
        let path = self.socket.display().to_string().replace(',', ",,");
        writeln!(
            f,
            "qhub {}: {mode} '{}' is up. To join it, give QEMU",
            env!("CARGO_PKG_VERSION"),
            self.instance
        )?;
        for n in 1..=UNIX_LINES {
            let device = self.device(n);
            writeln!(f, "  {device} -netdev stream,id=n0,addr.type=unix,addr.path={path}")?;
        }
        writeln!(
            f,
            "(QEMU 7.2 or later; to outlive a restart of qhub, add ,reconnect-ms=1000 from 9.2 on, ,reconnect=1 from 8.0 to 9.1)"
        )?;
        for (n, address) in (UNIX_LINES + 1..).zip(self.tcp) {
            let device = self.device(n);
            if address.is_ipv4() {
                writeln!(f, "  {device} -netdev socket,id=n0,connect={address}")?;
            } else {
                let (host, port) = (address.ip(), address.port());
                writeln!(
                    f,
                    "  {device} -netdev stream,id=n0,addr.type=inet,addr.host={host},addr.port={port}"
                )?;
            }
        }
        if !self.tcp.is_empty() {
            writeln!(f, "(any QEMU; any user of this host may join a TCP port)")?;
        }
        writeln!(f, "Each VM needs its own mac=; 'qhub mac' makes more. Ctrl-C stops.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tcp: &[SocketAddr]) -> String {
        let (macs, socket) = (Macs::of("lab"), Path::new("/run/a,b/qhub.sock"));
        Welcome { instance: "lab", macs: &macs, mode: Mode::Switch, socket, tcp }.to_string()
    }

    #[test]
    fn lines_have_addresses_of_their_own_and_escaped_commas() {
        let text = text(&["127.0.0.1:5555".parse().unwrap(), "[::1]:7".parse().unwrap()]);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("-netdev")).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].ends_with("addr.path=/run/a,,b/qhub.sock"));
        assert!(lines[2].ends_with("-netdev socket,id=n0,connect=127.0.0.1:5555"));
        assert!(lines[3].ends_with("addr.host=::1,addr.port=7"));
        let mut macs: Vec<&str> =
            lines.iter().filter_map(|line| line.split("mac=").nth(1)).map(|rest| &rest[..17]).collect();
        macs.sort_unstable();
        macs.dedup();
        assert_eq!(macs.len(), 4);
    }

    #[test]
    fn without_tcp_nothing_is_said_of_it() {
        assert!(!text(&[]).contains("TCP"));
    }
}
