//! Ports that may have something to receive, in the order in which they are served.
//!
//! Those whose peers stand still while they are not read, or lose what they send, come first in a turn. In
//! either class, who was served goes behind those that wait.

use std::collections::VecDeque;

use crate::bridge::PortId;

/// When in a turn a port is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Before the others.
    Urgent,
    /// After these.
    Patient,
}

/// The ready list.
#[derive(Debug, Default)]
pub(super) struct Ready {
    urgent: VecDeque<PortId>,
    patient: VecDeque<PortId>,
}

impl Ready {
    fn of_mut(&mut self, class: Class) -> &mut VecDeque<PortId> {
        match class {
            Class::Urgent => &mut self.urgent,
            Class::Patient => &mut self.patient,
        }
    }

    /// How many there are of a class.
    pub(super) fn len(&self, class: Class) -> usize {
        match class {
            Class::Urgent => self.urgent.len(),
            Class::Patient => self.patient.len(),
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = PortId> {
        self.urgent.iter().chain(&self.patient).copied()
    }

    /// Takes the first one of a class.
    pub(super) fn pop(&mut self, class: Class) -> Option<PortId> {
        self.of_mut(class).pop_front()
    }

    /// Puts a port behind those that wait.
    pub(super) fn push(&mut self, class: Class, id: PortId) {
        self.of_mut(class).push_back(id);
    }

    /// Puts a port back that was not served.
    pub(super) fn put_back(&mut self, class: Class, id: PortId) {
        self.of_mut(class).push_front(id);
    }

    /// Takes a port out.
    pub(super) fn remove(&mut self, id: PortId) {
        self.urgent.retain(|&listed| listed != id);
        self.patient.retain(|&listed| listed != id);
    }
}
