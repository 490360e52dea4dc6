//! Asking before something that can cut off the very session that asks for it.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;

use anyhow::{Result, bail};

use super::request::{BridgeName, Consent};
use super::step::{List, Takeover};
use crate::host::netlink::Address;

/// Which way the addresses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToBridge,
    ToInterface,
}

/// What is to be agreed to.
pub(super) struct Question<'a> {
    pub(super) bridge: &'a BridgeName,
    pub(super) takeover: &'a Takeover,
    pub(super) direction: Direction,
    /// Addresses where they come from that do not go along.
    pub(super) staying: Vec<Address>,
    /// The local address of the session.
    pub(super) session: Option<IpAddr>,
}

impl Consent {
    /// Asks on the terminal, and fails unless the answer is yes.
    pub(super) fn obtain(self, question: &Question<'_>) -> Result<()> {
        match self {
            Self::Given => return Ok(()),
            Self::Wanted => {}
        }
        let text = question.text();
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            bail!("{text}, which can cut off a remote session; to do it without being asked, add --yes");
        }
        write!(io::stderr(), "{text}.\nIf that fails, all is put back. Go on? [y/N] ")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if !["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
            bail!("nothing was changed");
        }
        Ok(())
    }
}

impl Question<'_> {
    fn text(&self) -> String {
        let Takeover { interface, addresses, .. } = self.takeover;
        let bridge = self.bridge.as_str();
        let (from, to) = match self.direction {
            Direction::ToBridge => (interface.as_str(), bridge),
            Direction::ToInterface => (bridge, interface.as_str()),
        };
        let mut text = match addresses.as_slice() {
            [] => {
                format!("this moves the routes of {interface}, which has no addresses, from {from} to {to}")
            }
            addresses => format!("this moves {} from {from} to {to}", List(addresses)),
        };
        // Writing to a string does not fail.
        if let Some(session) = self.session.filter(|session| has(addresses, *session)) {
            let _ = write!(text, "; your SSH session comes in by {session}");
        }
        if let Some(session) = self.session.filter(|session| has(&self.staying, *session)) {
            let _ = write!(
                text,
                "; your SSH session comes in by {session}, which does not move: it will be cut off"
            );
        }
        if self.staying.iter().any(Address::is_temporary) {
            let _ = write!(text, "; connections from the temporary IPv6 addresses of {from} end");
        }
        text
    }
}

fn has(addresses: &[Address], wanted: IpAddr) -> bool {
    addresses.iter().any(|address| address.ip() == Some(wanted))
}

/// The local address of the SSH session that this program was started in. `sudo` hides it from its children, but not
/// from root.
pub(super) fn session() -> Option<IpAddr> {
    let own = env::var("SSH_CONNECTION").ok();
    own.or_else(|| ancestors().find_map(|pid| of_process(&fs::read(format!("/proc/{pid}/environ")).ok()?)))
        .and_then(|connection| local_address(&connection))
}

fn ancestors() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(std::os::unix::process::parent_id()), |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may have any characters: state and parent.
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        (parent > 0).then_some(parent)
    })
}

fn of_process(environment: &[u8]) -> Option<String> {
    let variables = environment.split(|&octet| octet == 0);
    let mut found = variables.filter_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="));
    found.next().map(|value| String::from_utf8_lossy(value).into_owned())
}

/// `CLIENT PORT SERVER PORT`, where an address can have the name of its link behind a `%`.
fn local_address(connection: &str) -> Option<IpAddr> {
    let address = connection.split(' ').nth(2)?;
    address.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(direction: Direction, addresses: &[&str], session: &str) -> String {
        let addresses = addresses.iter().map(|text| Address::new(2, text.parse().unwrap(), 24)).collect();
        let takeover = Takeover {
            interface: "eth0".into(),
            index: 2,
            addresses,
            routes: vec![],
            learned: vec![],
            uptime: 0,
        };
        let bridge = "br0".parse().unwrap();
        let staying = vec![Address::new(2, "fe80::5".parse().unwrap(), 64)];
        let session = session.parse().ok();
        Question { bridge: &bridge, takeover: &takeover, direction, staying, session }.text()
    }

    #[test]
    fn it_says_what_moves_and_who_is_hit() {
        let (there, back) = (Direction::ToBridge, Direction::ToInterface);
        assert_eq!(
            text(there, &["10.0.0.5", "10.0.1.5"], ""),
            "this moves 10.0.0.5/24, 10.0.1.5/24 from eth0 to br0"
        );
        assert_eq!(
            text(back, &["10.0.0.5"], "10.0.0.5"),
            "this moves 10.0.0.5/24 from br0 to eth0; your SSH session comes in by 10.0.0.5"
        );
        assert_eq!(text(there, &["10.0.0.5"], "10.0.0.6"), "this moves 10.0.0.5/24 from eth0 to br0");
        assert_eq!(
            text(there, &["10.0.0.5"], "fe80::5"),
            "this moves 10.0.0.5/24 from eth0 to br0; your SSH session comes in by fe80::5, which does not move: it will be cut off"
        );
        assert_eq!(text(there, &["10.0.0.5"], "fe80::6"), "this moves 10.0.0.5/24 from eth0 to br0");
    }

    #[test]
    fn the_session_is_the_third_word() {
        let address = |text: &str| local_address(text).map(|ip| ip.to_string());
        assert_eq!(address("192.0.2.9 51234 192.0.2.5 22").as_deref(), Some("192.0.2.5"));
        assert_eq!(address("fe80::9%eth0 1 fe80::5%eth0 22").as_deref(), Some("fe80::5"));
        assert_eq!(address("192.0.2.9 51234"), None);
        assert_eq!(address("UNKNOWN 65535 UNKNOWN 65535"), None);
        let environment = b"A=1\0SSH_CONNECTION=1.1.1.1 1 2.2.2.2 22\0B=2\0";
        assert_eq!(of_process(environment).as_deref(), Some("1.1.1.1 1 2.2.2.2 22"));
        assert_eq!(of_process(b"XSSH_CONNECTION=1\0"), None);
    }
}
