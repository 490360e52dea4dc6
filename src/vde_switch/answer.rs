//! What the console answers, from plain data, laid out as the original does it: programs read it line by line.

use std::fmt::Write;

use nix::errno::Errno;

use super::users::Names;
use crate::bridge::Mode;
use crate::hub::{Endpoint, NumberedPort, PortTraffic, Station, SwitchState};
use crate::link::Peer;

/// What the first line of a console says: the version of the original that it speaks like. Programs look for
/// it there.
pub(super) const BANNER: &str = concat!(
    "VDE switch V.2.3.2\nqhub ",
    env!("CARGO_PKG_VERSION"),
    " in the place of vde_switch - MIT OR Apache-2.0\n"
);

/// What stands behind each answer where somebody types.
pub(super) const PROMPT: &str = "\nvde$ ";

/// The last words to a session.
pub(super) const GOODBYE: &str = "9999 END OF SESSION";

const BEGIN: &str = "0000 DATA END WITH '.'\n";
const END: &str = ".\n";

/// What becomes of a command: data, if it has any, and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whole lines, none of which is a single dot.
    pub(super) data: Option<String>,
    /// How it went.
    pub(super) result: Result<(), Errno>,
}

impl Answer {
    /// An answer without data.
    pub(super) fn plain(result: Result<(), Errno>) -> Self {
        Self { data: None, result }
    }

    /// All of it as text.
    pub(super) fn render(&self) -> String {
        let data = self.data.as_deref().map_or_else(String::new, |data| [BEGIN, data, END].concat());
        data + &status(self.result)
    }
}

/// Where data begin that come bit by bit.
pub(super) fn begin_data() -> &'static str {
    BEGIN
}

/// Where they end.
pub(super) fn end_data(result: Result<(), Errno>) -> String {
    END.to_owned() + &status(result)
}

/// How it went, as a line.
fn status(result: Result<(), Errno>) -> String {
    match result {
        Ok(()) => "1000 Success\n".to_owned(),
        Err(errno) => format!("1{:03} {}\n", errno as i32, errno.desc()),
    }
}

/// What somebody else has written, so that it stays on its line.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|char| if is_breaking(char) { '?' } else { char }).collect()
}

/// Control characters, and those that begin a line for somebody.
fn is_breaking(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

/// `port/showinfo`.
pub(super) fn port_info(state: &SwitchState) -> String {
    let is_hub = state.mode == Mode::Hub;
    format!("Numports={}\nHUB={is_hub}\ncounters=true\n", state.limit)
}

/// `hash/showinfo`: what is old is found to be so when it is looked at, and a station moves at once.
pub(super) fn hash_info(state: &SwitchState) -> String {
    format!(
        "Hash size {}\nGC interval 0 secs\nGC expire {} secs\nMin persistence 0 secs\n",
        state.fdb_max,
        state.ageing.as_secs()
    )
}

/// Of `hash/print`: there are no buckets that would have numbers.
pub(super) fn stations<'s>(stations: impl Iterator<Item = &'s Station>) -> String {
    let mut text = String::new();
    for Station { vid, mac, port, age } in stations {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "Hash: 0000 Addr: {mac} VLAN {vid:04} to port: {port:03}  age {} secs",
            age.as_secs()
        );
    }
    text
}

/// Of `vlan/print`: the one VLAN that there is, for frames as they are.
pub(super) fn vlan<'p>(ports: impl Iterator<Item = &'p NumberedPort>) -> String {
    let mut text = "VLAN 0000\n".to_owned();
    for port in ports {
        let (active, status) = if port.is_active { (1, "Forwarding") } else { (0, "Discarding") };
        let _ = writeln!(text, " -- Port {:04} tagged=0 active={active} status={status}", port.number);
    }
    text
}

/// Of `port/print`.
pub(super) fn port(port: &NumberedPort, users: &Names, groups: &Names) -> String {
    let NumberedPort { number, is_allocatable, is_active, user, group, traffic, endpoints } = port;
    let activity = if *is_active { "ACTIVE" } else { "INACTIVE" };
    let not = if *is_allocatable { "" } else { "NOT " };
    let named =
        |number: Option<u32>, names: &Names| number.map_or("NONE".to_owned(), |number| names.show(number));
    let current = named(endpoints.iter().find_map(uid), users);
    let (user, group) = (named(*user, users), named(*group, groups));
    let mut text = format!(
        "Port {number:04} untagged_vlan=0000 {activity} - {not}Unnamed Allocatable\n \
         Current User: {current} Access Control: (User: {user} - Group: {group})\n"
    );
    text.push_str(&counters(traffic));
    for endpoint in endpoints {
        let (module, description) = endpoint_kind(endpoint);
        let _ = writeln!(text, "  -- endpoint ID {:04} module {module:<12}: {description}", endpoint.id);
    }
    text
}

/// The line of drops is not the original's, which counts what it drops as sent.
fn counters(traffic: &PortTraffic) -> String {
    let PortTraffic { received, sent, dropped } = traffic;
    let mut text = String::new();
    for (name, traffic) in [("IN: ", received), ("OUT:", sent)] {
        let _ = writeln!(text, " {name} pkts {:10}          bytes {:20}", traffic.frames, traffic.octets);
    }
    if *dropped > 0 {
        let _ = writeln!(text, " DROPPED: pkts {dropped:5}");
    }
    text
}

/// Whose it is.
fn uid(endpoint: &Endpoint) -> Option<u32> {
    match &endpoint.peer {
        Peer::Client { uid, .. } | Peer::Process { uid, .. } => Some(*uid),
        Peer::Address(_) | Peer::Socket(_) | Peer::Interface { .. } | Peer::Unknown => None,
    }
}

/// The original's name for its kind, and what it is.
fn endpoint_kind(endpoint: &Endpoint) -> (&'static str, String) {
    match &endpoint.peer {
        Peer::Client { .. } | Peer::Process { .. } => ("unix prog", description(endpoint)),
        Peer::Interface { .. } => ("tuntap", description(endpoint)),
        Peer::Address(_) | Peer::Socket(_) | Peer::Unknown => ("other", description(endpoint)),
    }
}

/// What a client says of itself, as the original shows it; who it is, where it says nothing.
pub(super) fn description(endpoint: &Endpoint) -> String {
    match &endpoint.peer {
        Peer::Client { description, .. } if !description.trim().is_empty() => one_line(description),
        Peer::Interface { name, .. } => one_line(name),
        peer @ (Peer::Client { .. }
        | Peer::Process { .. }
        | Peer::Address(_)
        | Peer::Socket(_)
        | Peer::Unknown) => one_line(&peer.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Traffic;
    use hub_protocol::mac::Mac;
    use std::time::Duration;

    fn client(id: usize, description: &str) -> Endpoint {
        Endpoint { id, peer: Peer::Client { uid: 0, pid: 12, description: description.to_owned() } }
    }

    fn numbered(number: u16, endpoints: Vec<Endpoint>) -> NumberedPort {
        NumberedPort {
            number,
            is_allocatable: true,
            is_active: !endpoints.is_empty(),
            user: None,
            group: None,
            traffic: PortTraffic::default(),
            endpoints,
        }
    }

    #[test]
    fn results_have_the_numbers_of_the_system() {
        let text = |result| Answer::plain(result).render();
        assert_eq!(text(Ok(())), "1000 Success\n");
        assert_eq!(text(Err(Errno::ENOENT)), "1002 No such file or directory\n");
        assert_eq!(text(Err(Errno::ENXIO)), "1006 No such device or address\n");
        assert_eq!(text(Err(Errno::EEXIST)), "1017 File exists\n");
        assert_eq!(text(Err(Errno::ENODEV)), "1019 No such device\n");
        assert_eq!(text(Err(Errno::EINVAL)), "1022 Invalid argument\n");
        assert_eq!(text(Err(Errno::ENOSYS)), "1038 Function not implemented\n");
        assert_eq!(text(Err(Errno::EADDRINUSE)), "1098 Address already in use\n");
        let answer = Answer { data: Some("a\nb\n".into()), result: Err(Errno::ENXIO) };
        assert_eq!(answer.render(), "0000 DATA END WITH '.'\na\nb\n.\n1006 No such device or address\n");
    }

    /// Taken from the original.
    #[test]
    fn a_port_is_laid_out_as_the_original_does_it() {
        let mut port = numbered(1, vec![client(9, "vdeplug: user=root pid=24142"), client(7, " ")]);
        port.traffic.received = Traffic { frames: 1, octets: 60 };
        let users = Names::default();
        assert_eq!(
            super::port(&port, &users, &users),
            "Port 0001 untagged_vlan=0000 ACTIVE - Unnamed Allocatable\n \
             Current User: 0 Access Control: (User: NONE - Group: NONE)\n \
             IN:  pkts          1          bytes                   60\n \
             OUT: pkts          0          bytes                    0\n  \
             -- endpoint ID 0009 module unix prog   : vdeplug: user=root pid=24142\n  \
             -- endpoint ID 0007 module unix prog   : uid 0 pid 12:  \n"
        );
        let mut port = numbered(31, vec![]);
        (port.is_allocatable, port.user, port.group, port.traffic.dropped) = (false, Some(7), Some(8), 3);
        assert_eq!(
            super::port(&port, &users, &users),
            "Port 0031 untagged_vlan=0000 INACTIVE - NOT Unnamed Allocatable\n \
             Current User: NONE Access Control: (User: 7 - Group: 8)\n \
             IN:  pkts          0          bytes                    0\n \
             OUT: pkts          0          bytes                    0\n \
             DROPPED: pkts     3\n"
        );
        let tap = Peer::Interface { name: "tap0".into(), note: Some("down".into()) };
        let port = numbered(2, vec![Endpoint { id: 6, peer: tap }]);
        assert!(
            super::port(&port, &users, &users).ends_with("  -- endpoint ID 0006 module tuntap      : tap0\n")
        );
    }

    #[test]
    fn nothing_that_a_client_says_is_a_line() {
        let client = client(1, "a\n.\r\n1000 Success\u{85}\u{2028}3021 port/+ 07\u{1b}[2J");
        let text = port(&numbered(1, vec![client]), &Names::default(), &Names::default());
        assert_eq!(text.lines().count(), 5);
        assert!(text.ends_with(": a?.??1000 Success??3021 port/+ 07?[2J\n"), "{text}");
    }

    #[test]
    fn stations_vlans_and_what_is_set() {
        let rows = [
            Station { vid: 0, mac: Mac([0x52, 0x54, 0, 0, 0, 1]), port: 1, age: Duration::from_millis(1900) },
            Station { vid: 4095, mac: Mac([2; 6]), port: 1024, age: Duration::ZERO },
        ];
        assert_eq!(
            stations(rows.iter()),
            "Hash: 0000 Addr: 52:54:00:00:00:01 VLAN 0000 to port: 001  age 1 secs\n\
             Hash: 0000 Addr: 02:02:02:02:02:02 VLAN 4095 to port: 1024  age 0 secs\n"
        );
        let ports = [numbered(1, vec![client(1, "")]), numbered(3, vec![])];
        assert_eq!(
            vlan(ports.iter()),
            "VLAN 0000\n -- Port 0001 tagged=0 active=1 status=Forwarding\n -- Port 0003 tagged=0 active=0 status=Discarding\n"
        );
        let state = SwitchState {
            mode: Mode::Hub,
            ageing: Duration::from_secs(300),
            fdb_max: 8192,
            limit: 32,
            ports: vec![],
        };
        assert_eq!(port_info(&state), "Numports=32\nHUB=true\ncounters=true\n");
        assert_eq!(
            hash_info(&state),
            "Hash size 8192\nGC interval 0 secs\nGC expire 300 secs\nMin persistence 0 secs\n"
        );
    }
}
