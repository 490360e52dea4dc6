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
    groups: BTreeMap<PortId, PortSet>,
}

impl Mates {
    /// Makes `port` stand for the same as `other`.
    pub(super) fn join(&mut self, port: PortId, other: PortId) {
        let lead = self.lead(other);
        self.leads.insert(lead, lead);
        self.leads.insert(port, lead);
        let group = self.groups.entry(lead).or_default();
        group.insert(lead);
        group.insert(port);
    }

    /// The one that leads `port` and its mates: itself, when it has none.
    pub(super) fn lead(&self, port: PortId) -> PortId {
        if self.leads.is_empty() { port } else { *self.leads.get(&port).unwrap_or(&port) }
    }

    /// All that stand for the same as `port`; `None` when it is alone.
    pub(super) fn of(&self, port: PortId) -> Option<PortSet> {
        if self.leads.is_empty() {
            return None;
        }
        self.groups.get(self.leads.get(&port)?).copied()
    }

    /// Takes `port` away. Returns who leads now, if it did before.
    pub(super) fn leave(&mut self, port: PortId) -> Option<PortId> {
        let lead = self.leads.remove(&port)?;
        let mut group = self.groups.remove(&lead)?;
        group.remove(port);
        let next = if lead == port { group.iter().next()? } else { lead };
        if group.only().is_some() {
            self.leads.remove(&next);
        } else {
            group.iter().for_each(|mate| {
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
        assert_eq!((mates.lead(port(5)), mates.of(port(5)), mates.leave(port(5))), (port(5), None, None));
        mates.join(port(7), port(5));
        mates.join(port(1), port(7));
        let all = PortSet::from_iter([port(1), port(5), port(7)]);
        for mate in [1, 5, 7] {
            assert_eq!((mates.lead(port(mate)), mates.of(port(mate))), (port(5), Some(all)));
        }
        assert_eq!(mates.of(port(2)), None);
        assert_eq!(mates.leave(port(7)), None, "another one leads");
        assert_eq!(mates.leave(port(5)), Some(port(1)));
        assert_eq!((mates.lead(port(1)), mates.of(port(1))), (port(1), None));
        assert!(mates.leads.is_empty() && mates.groups.is_empty());
    }
}
