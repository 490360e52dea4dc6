//! What is compared for those who want to be told of changes: nothing while there are none of them.

use std::time::{Duration, Instant};

use super::events::{Event, port_changes, station_changes};
use crate::hub::{self, Hub, NumberedPort, Station};

/// How often two states are compared, at the most.
const INTERVAL: Duration = Duration::from_millis(50);

/// The same, in times that this takes: frames come first.
const EASE: u32 = 10;

/// What the state of the switch was when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Watch {
    ports: Option<Vec<NumberedPort>>,
    /// With how often any had changed.
    stations: Option<(u64, Vec<Station>)>,
    /// When the next look may be taken.
    next: Option<Instant>,
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
            self.stations = hub.stations(now).map(|stations| (hub.station_changes(), stations));
        }
    }

    /// When it is to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.filter(|_| self.is_old)
    }

    /// What has happened, if it is time to look.
    pub(super) fn compare(&mut self, hub: &Hub, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        if self.ports.is_none() && self.stations.is_none() {
            self.is_old = false;
            return events;
        }
        if self.next.is_some_and(|next| now < next) {
            self.is_old = true;
            return events;
        }
        let begin = hub::now();
        if let (Some(before), Some(state)) = (&mut self.ports, hub.state(now)) {
            events.extend(port_changes(before, &state.ports));
            *before = state.ports;
        }
        if let Some((changes, before)) = &mut self.stations
            && *changes != hub.station_changes()
            && let Some(after) = hub.stations(now)
        {
            events.extend(station_changes(before, &after));
            (*changes, *before) = (hub.station_changes(), after);
        }
        let end = hub::now();
        (self.next, self.is_old) = (Some(end + rest(end.saturating_duration_since(begin))), false);
        events
    }
}

/// How long to wait after a look that took `effort`.
fn rest(effort: Duration) -> Duration {
    INTERVAL.max(effort * EASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_it_takes_the_less_it_is_done() {
        let times = [0, 5, 6, 50].map(|effort| rest(Duration::from_millis(effort)).as_millis());
        assert_eq!(times, [50, 50, 60, 500]);
    }
}
