//! The state of a hub as a plain value: for the log, and for whoever asks later.

use std::fmt;
use std::time::Instant;

use super::Hub;
use crate::bridge::{FdbCounters, FdbRow};
use crate::discard::Drops;
use crate::port::Counters;

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRow {
    /// Its name.
    pub name: String,
    /// Who is at the other end.
    pub peer: String,
    /// What it moved and dropped.
    pub counters: Counters,
    /// Frames that wait for its peer.
    pub queued_frames: u64,
    /// Octets that wait for its peer.
    pub queued: usize,
}

/// A hub at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its ports.
    pub ports: Vec<PortRow>,
    /// What was lost on the way to no port, by door.
    pub doors: Vec<(String, Drops)>,
    /// The sum over the ports that are gone.
    pub departed: Counters,
    /// Frames received, times the ports that each was to leave by (once where that was none): what
    /// was sent, waits and was dropped adds up to this.
    pub copies: u64,
    /// The stations it remembers, each with the name of its port.
    pub fdb: Vec<(FdbRow, String)>,
    /// What happened to the filtering database.
    pub fdb_counters: FdbCounters,
    /// Octets of memory that the egress queues hold.
    pub memory: usize,
}

impl Hub {
    /// The state at `now`.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let slab = &self.ports.slab;
        let name = |id| slab.get(id).map_or_else(String::new, |port| port.name.clone());
        Snapshot {
            ports: slab
                .iter()
                .map(|(_, port)| PortRow {
                    name: port.name.clone(),
                    peer: port.peer.to_string(),
                    counters: port.counters(now),
                    queued_frames: port.queued_frames(),
                    queued: port.queued(),
                })
                .collect(),
            doors: self.doors.drops(),
            departed: self.departed,
            copies: self.copies,
            fdb: self.bridge.fdb_rows(now).into_iter().map(|row| (row, name(row.port))).collect(),
            fdb_counters: self.bridge.fdb_counters(),
            memory: self.ports.memory.used(),
        }
    }
}

impl Snapshot {
    /// One line for each port, one for those that are gone, and one for each door that lost
    /// something, if any did.
    pub fn totals(&self) -> Vec<String> {
        let ports = self.ports.iter().map(|port| format!("{} ({}): {}", port.name, port.peer, port.counters));
        let gone = (self.departed != Counters::default()).then(|| format!("ports gone: {}", self.departed));
        let doors = self.doors.iter().filter(|(_, drops)| drops.total() > 0);
        let doors = doors.map(|(door, drops)| format!("{door}: dropped {} ({drops})", drops.total()));
        ports.chain(gone).chain(doors).collect()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ports, their queues hold {} octets", self.ports.len(), self.memory)?;
        let ports = self.ports.iter().map(Some).chain(std::iter::repeat(None));
        for (line, port) in self.totals().iter().zip(ports) {
            write!(f, "  {line}")?;
            match port {
                Some(port) => writeln!(f, ", queued {} frames {} octets", port.queued_frames, port.queued)?,
                None => writeln!(f)?,
            }
        }
        let FdbCounters { learned, moved, expired, evicted, conflicts } = self.fdb_counters;
        write!(
            f,
            "fdb: {} stations, learned {learned} moved {moved} expired {expired} evicted {evicted} conflicts {conflicts}",
            self.fdb.len()
        )?;
        for (row, port) in &self.fdb {
            write!(f, "\n  {} vid {} port {port} age {} s", row.mac, row.vid, row.age.as_secs())?;
        }
        Ok(())
    }
}
