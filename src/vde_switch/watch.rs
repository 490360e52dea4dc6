//! What is compared for those who want to be told of changes: nothing while there are none of them.

use std::time::{Duration, Instant};

use super::events::{Event, port_changes, station_changes};
use crate::hub::{Hub, NumberedPort, Station};

/// How often two states are compared, at the most.
const INTERVAL: Duration = Duration::from_millis(50);

/// What the state of the switch was when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Watch {
    ports: Option<Vec<NumberedPort>>,
    stations: Option<Vec<Station>>,
    compared: Option<Instant>,
    /// May something have happened since?
    is_old: bool,
}

impl Watch {
    /// Watches what is wanted from now on, and nothing else.
    pub(super) fn adjust(&mut self, hub: &Hub, wants_ports: bool, wants_stations: bool, now: Instant) {
        if !wants_ports {
            self.ports = None;
        } else if self.ports.is_none() {
            self.ports = hub.state(now).map(|state| state.ports);
        }
        if !wants_stations {
            self.stations = None;
        } else if self.stations.is_none() {
            self.stations = hub.stations(now);
        }
    }

    /// When it is to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.compared.filter(|_| self.is_old).map(|compared| compared + INTERVAL)
    }

    /// What has happened, if it is time to look.
    pub(super) fn compare(&mut self, hub: &Hub, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        if self.ports.is_none() && self.stations.is_none() {
            self.is_old = false;
            return events;
        }
        if self.compared.is_some_and(|compared| now.saturating_duration_since(compared) < INTERVAL) {
            self.is_old = true;
            return events;
        }
        if let (Some(before), Some(state)) = (&mut self.ports, hub.state(now)) {
            events.extend(port_changes(before, &state.ports));
            *before = state.ports;
        }
        if let (Some(before), Some(after)) = (&mut self.stations, hub.stations(now)) {
            events.extend(station_changes(before, &after));
            *before = after;
        }
        (self.compared, self.is_old) = (Some(now), false);
        events
    }
}
