//! Ports that stand for one: what is sent to it goes to each of them, and what one of them sends goes to
//! none of the others. The bridge knows them by the one that leads.

use std::collections::BTreeMap;

use super::ports::{PortId, PortSet};

/// Those of all ports that stand for one with others.
#[derive(Debug, Default)]
pub(super) struct Mates {
    /// Each of them, with the one that leads.
    leads: BTreeMap<PortId, PortId>,
    /// All that stand for one, by the one that leads.
    groups: BTreeMap<PortId, Group>,
}

/// Ports that stand for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// All of them.
    pub(super) ports: PortSet,
    /// The one that was heard last.
    pub(super) heard: PortId,
}

impl Mates {
    /// Makes `port` stand for the same as `other`.
    pub(super) fn join(&mut self, port: PortId, other: PortId) {
        let lead = self.lead(other);
        self.leads.insert(lead, lead);
        self.leads.insert(port, lead);
        let alone = Group { ports: PortSet::from_iter([lead]), heard: lead };
        self.groups.entry(lead).or_insert(alone).ports.insert(port);
    }

    /// The one that leads `port` and its mates: itself, when it has none.
    pub(super) fn lead(&self, port: PortId) -> PortId {
        if self.leads.is_empty() { port } else { *self.leads.get(&port).unwrap_or(&port) }
    }

    /// All that stand for the same as `port`; `None` when it is alone.
    pub(super) fn of(&self, port: PortId) -> Option<Group> {
        if self.leads.is_empty() {
            return None;
        }
        self.groups.get(self.leads.get(&port)?).copied()
    }

    /// `port` was heard. Returns the one that leads, as [`Self::lead`].
    pub(super) fn note_heard(&mut self, port: PortId) -> PortId {
        let lead = self.lead(port);
        if let Some(group) = self.groups.get_mut(&lead) {
            group.heard = port;
        }
        lead
    }

    /// Takes `port` away. Returns who leads now, if it did before.
    pub(super) fn leave(&mut self, port: PortId) -> Option<PortId> {
        let lead = self.leads.remove(&port)?;
        let mut group = self.groups.remove(&lead)?;
        group.ports.remove(port);
        let next = if lead == port { group.ports.iter().next()? } else { lead };
        if group.heard == port {
            group.heard = next;
        }
        if group.ports.only().is_some() {
            self.leads.remove(&next);
        } else {
            group.ports.iter().for_each(|mate| {
                self.leads.insert(mate, next);
            });
            self.groups.insert(next, group);
        }
        (lead == port).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(index: usize) -> PortId {
        PortId::new(index).unwrap()
    }

    #[test]
    fn somebody_leads_until_one_is_left() {
        let mut mates = Mates::default();
        let group = |mates: &Mates, member| mates.of(port(member)).map(|group| (group.ports, group.heard));
        assert_eq!((mates.lead(port(5)), group(&mates, 5), mates.leave(port(5))), (port(5), None, None));
        mates.join(port(7), port(5));
        mates.join(port(1), port(7));
        let all = PortSet::from_iter([port(1), port(5), port(7)]);
        for mate in [1, 5, 7] {
            assert_eq!(mates.note_heard(port(mate)), port(5));
            assert_eq!(group(&mates, 1), Some((all, port(mate))));
        }
        assert_eq!((mates.note_heard(port(2)), group(&mates, 2)), (port(2), None));
        assert_eq!(mates.leave(port(7)), None, "another one leads");
        assert_eq!(group(&mates, 1).map(|group| group.1), Some(port(5)), "the one that was heard is gone");
        assert_eq!(mates.leave(port(5)), Some(port(1)));
        assert_eq!((mates.lead(port(1)), group(&mates, 1)), (port(1), None));
        assert!(mates.leads.is_empty() && mates.groups.is_empty());
    }
}
