//! What `debug/*` tells: that ports, endpoints and stations come and go. Found by comparing two states of the
//! switch, so that it costs nothing while nobody listens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use nix::errno::Errno;

use super::answer::description;
use crate::hub::{Endpoint, NumberedPort, Station};

/// The kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    StationAdded,
    StationGone,
    PortAdded,
    PortGone,
    Described,
    EndpointAdded,
    EndpointGone,
}

impl Kind {
    /// In the order in which they are listed.
    const ALL: [Self; 7] = [
        Self::StationAdded,
        Self::StationGone,
        Self::PortAdded,
        Self::PortGone,
        Self::Described,
        Self::EndpointAdded,
        Self::EndpointGone,
    ];

    /// Its name.
    fn path(self) -> &'static str {
        match self {
            Self::StationAdded => "hash/+",
            Self::StationGone => "hash/-",
            Self::PortAdded => "port/+",
            Self::PortGone => "port/-",
            Self::Described => "port/descr",
            Self::EndpointAdded => "port/ep/+",
            Self::EndpointGone => "port/ep/-",
        }
    }

    /// What programs know it by.
    fn tag(self) -> u16 {
        match self {
            Self::StationAdded => 0o11,
            Self::StationGone => 0o12,
            Self::PortAdded => 0o21,
            Self::PortGone => 0o22,
            Self::Described => 0o23,
            Self::EndpointAdded => 0o31,
            Self::EndpointGone => 0o32,
        }
    }

    fn is_of_stations(self) -> bool {
        matches!(self, Self::StationAdded | Self::StationGone)
    }

    fn help(self) -> &'static str {
        match self {
            Self::StationAdded => "hash: new element",
            Self::StationGone => "hash: discarded element",
            Self::PortAdded => "new port",
            Self::PortGone => "closed port",
            Self::Described => "set port description",
            Self::EndpointAdded => "new endpoint",
            Self::EndpointGone => "closed endpoint",
        }
    }
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    kind: Kind,
    what: String,
}

impl Event {
    /// As a line.
    pub(super) fn render(&self) -> String {
        format!("3{:03o} {} {}\n", self.kind.tag(), self.kind.path(), self.what)
    }
}

/// A line that says how many others there was no room for.
pub(super) fn lost(events: u64) -> String {
    format!("3000 debug/lost {events} events\n")
}

/// The kinds that a session wants to be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscriptions(BTreeSet<Kind>);

impl Subscriptions {
    /// Are there any of ports?
    pub(super) fn are_of_ports(&self) -> bool {
        self.0.iter().any(|kind| !kind.is_of_stations())
    }

    /// Are there any of stations?
    pub(super) fn are_of_stations(&self) -> bool {
        self.0.iter().any(|kind| kind.is_of_stations())
    }

    /// Is `event` among them?
    pub(super) fn have(&self, event: &Event) -> bool {
        self.0.contains(&event.kind)
    }

    /// Adds all whose name begins with `prefix`.
    ///
    /// # Errors
    ///
    /// `EINVAL` where there are none, `EEXIST` where all are there already.
    pub(super) fn add(&mut self, prefix: &str) -> Result<(), Errno> {
        let before = self.0.len();
        self.0.extend(matching(prefix)?);
        if self.0.len() == before { Err(Errno::EEXIST) } else { Ok(()) }
    }

    /// Takes them out again.
    ///
    /// # Errors
    ///
    /// `EINVAL` where there are none, `ENOENT` where none was there.
    pub(super) fn remove(&mut self, prefix: &str) -> Result<(), Errno> {
        let kinds = matching(prefix)?;
        let before = self.0.len();
        self.0.retain(|kind| !kinds.contains(kind));
        if self.0.len() == before { Err(Errno::ENOENT) } else { Ok(()) }
    }

    /// `debug/list`.
    pub(super) fn list(&self) -> String {
        let mut text =
            "CATEGORY               TAG STATUS HELP\n------------           --- ------ ----\n".to_owned();
        for kind in Kind::ALL {
            let status = if self.0.contains(&kind) { "ON" } else { "OFF" };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:<22} {:03o} {status:<6} {}", kind.path(), kind.tag(), kind.help());
        }
        text
    }
}

fn matching(prefix: &str) -> Result<Vec<Kind>, Errno> {
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.path().starts_with(prefix)).collect();
    if kinds.is_empty() { Err(Errno::EINVAL) } else { Ok(kinds) }
}

/// What has happened to ports and their endpoints.
pub(super) fn port_changes(before: &[NumberedPort], after: &[NumberedPort]) -> Vec<Event> {
    let by_number = |ports: &'_ [NumberedPort]| -> BTreeMap<u16, Vec<Endpoint>> {
        ports.iter().map(|port| (port.number, port.endpoints.clone())).collect()
    };
    let (before, after) = (by_number(before), by_number(after));
    let mut events = Vec::new();
    let mut tell = |kind, what| events.push(Event { kind, what });
    let nobody = Vec::new();
    for (number, endpoints) in &before {
        let still = after.get(number).unwrap_or(&nobody);
        for endpoint in endpoints.iter().filter(|endpoint| !still.contains(endpoint)) {
            tell(Kind::EndpointGone, format!("Port {number:02} FD {:2}", endpoint.id));
        }
        if !after.contains_key(number) {
            tell(Kind::PortGone, format!("{number:02}"));
        }
    }
    for (number, endpoints) in &after {
        if !before.contains_key(number) {
            tell(Kind::PortAdded, format!("{number:02}"));
        }
        let already = before.get(number).unwrap_or(&nobody);
        for endpoint in endpoints.iter().filter(|endpoint| !already.contains(endpoint)) {
            let place = format!("Port {number:02} FD {:2}", endpoint.id);
            tell(Kind::EndpointAdded, place.clone());
            tell(Kind::Described, format!("{place} -> \"{}\"", description(endpoint)));
        }
    }
    events
}

/// What has happened to stations.
pub(super) fn station_changes(before: &[Station], after: &[Station]) -> Vec<Event> {
    let by_key = |stations: &[Station]| -> BTreeMap<_, u16> {
        stations.iter().map(|station| ((station.vid, station.mac), station.port)).collect()
    };
    let (before, after) = (by_key(before), by_key(after));
    let event = |kind, (&(vid, mac), port): (&(u16, _), &u16)| {
        let [high, low] = vid.to_be_bytes();
        Event { kind, what: format!("{mac} VLAN {high:02x}:{low:02x} Port {port}") }
    };
    let gone = before.iter().filter(|(key, port)| after.get(key) != Some(port));
    let added = after.iter().filter(|(key, port)| before.get(key) != Some(port));
    gone.map(|row| event(Kind::StationGone, row))
        .chain(added.map(|row| event(Kind::StationAdded, row)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::PortTraffic;
    use crate::link::Peer;
    use hub_protocol::mac::Mac;
    use std::time::Duration;

    fn port(number: u16, endpoints: &[(usize, &str)]) -> NumberedPort {
        let endpoint = |&(id, description): &(usize, &str)| Endpoint {
            id,
            peer: Peer::Client { uid: 0, pid: 1, description: description.to_owned() },
        };
        NumberedPort {
            number,
            is_allocatable: true,
            is_active: true,
            user: None,
            group: None,
            traffic: PortTraffic::default(),
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    fn station(last: u8, vid: u16, port: u16, age: u64) -> Station {
        Station { vid, mac: Mac([0x52, 0x54, 0, 0, 0, last]), port, age: Duration::from_secs(age) }
    }

    fn told(before: &[NumberedPort], after: &[NumberedPort]) -> String {
        port_changes(before, after).iter().map(Event::render).collect()
    }

    fn told_of(before: &[Station], after: &[Station]) -> String {
        station_changes(before, after).iter().map(Event::render).collect()
    }

    /// Taken from the original.
    #[test]
    fn a_client_comes_and_goes() {
        let somebody = [port(1, &[(7, "py")])];
        assert_eq!(
            told(&[], &somebody),
            "3021 port/+ 01\n3031 port/ep/+ Port 01 FD  7\n3023 port/descr Port 01 FD  7 -> \"py\"\n"
        );
        assert_eq!(told(&somebody, &[]), "3032 port/ep/- Port 01 FD  7\n3022 port/- 01\n");
        let two = [port(1, &[(7, "py"), (12, "he said \"x\"")])];
        assert_eq!(
            told(&somebody, &two),
            "3031 port/ep/+ Port 01 FD 12\n3023 port/descr Port 01 FD 12 -> \"he said \"x\"\"\n"
        );
        assert_eq!(told(&somebody, &somebody), "");
        let another = [port(1, &[(7, "another")])];
        assert!(told(&somebody, &another).starts_with("3032 port/ep/- Port 01 FD  7\n3031 port/ep/+ "));
    }

    #[test]
    fn stations_come_move_and_go() {
        assert_eq!(told_of(&[], &[station(1, 0, 1, 0)]), "3011 hash/+ 52:54:00:00:00:01 VLAN 00:00 Port 1\n");
        assert_eq!(
            told_of(&[station(1, 258, 1, 0)], &[station(1, 258, 2, 0)]),
            "3012 hash/- 52:54:00:00:00:01 VLAN 01:02 Port 1\n3011 hash/+ 52:54:00:00:00:01 VLAN 01:02 Port 2\n"
        );
        assert_eq!(told_of(&[station(1, 0, 1, 0)], &[station(1, 0, 1, 9)]), "", "it only aged");
    }

    #[test]
    fn kinds_are_chosen_by_how_they_begin() {
        let mut chosen = Subscriptions::default();
        assert_eq!(chosen.remove(""), Err(Errno::ENOENT));
        assert_eq!(chosen.add("packet/in"), Err(Errno::EINVAL));
        assert_eq!(chosen.add("port/+"), Ok(()));
        assert_eq!(chosen.add("port/+"), Err(Errno::EEXIST));
        assert_eq!(chosen.add("port"), Ok(()), "there are others");
        assert_eq!(chosen.add("port"), Err(Errno::EEXIST));
        assert!(chosen.list().contains("port/ep/-              032 ON     closed endpoint\n"));
        assert!(chosen.list().contains("hash/+                 011 OFF    hash: new element\n"));
        assert_eq!(chosen.remove("port/ep"), Ok(()));
        assert_eq!(chosen.remove("fstp"), Err(Errno::EINVAL));
        assert_eq!(chosen.add(""), Ok(()));
        assert_eq!(
            (chosen.remove(""), chosen.are_of_ports(), chosen.are_of_stations()),
            (Ok(()), false, false)
        );
        assert_eq!(lost(3), "3000 debug/lost 3 events\n");
    }
}
