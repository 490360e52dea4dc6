//! The ports of the hub, by their index: a [`PortId`] is also the poll's token for it.

use std::collections::BTreeSet;
use std::io;

use crate::bridge::{MAX_PORTS, PortId};
use crate::port::Port;

/// Ports in slots that are used again.
#[derive(Debug)]
pub(super) struct Slab {
    ports: Vec<Option<Port>>,
    free: BTreeSet<PortId>,
    limit: usize,
}

impl Slab {
    /// Room for `limit` ports, [`MAX_PORTS`] at the most.
    pub(super) fn new(limit: usize) -> Self {
        Self { ports: Vec::new(), free: BTreeSet::new(), limit: limit.min(MAX_PORTS) }
    }

    /// The place of the next port; `None` when there is no room.
    pub(super) fn vacancy(&self) -> Option<PortId> {
        self.free
            .first()
            .copied()
            .or_else(|| PortId::new(self.ports.len()).filter(|id| id.index() < self.limit))
    }

    /// Why there is no vacancy.
    pub(super) fn full(&self) -> io::Error {
        io::Error::other(format!("all {} ports are in use; raise --max-ports", self.limit))
    }

    /// Puts a port into the place that [`Self::vacancy`] named.
    pub(super) fn insert(&mut self, id: PortId, port: Port) {
        if self.free.remove(&id) {
            self.ports[id.index()] = Some(port);
        } else {
            self.ports.push(Some(port));
        }
    }

    pub(super) fn remove(&mut self, id: PortId) -> Option<Port> {
        let port = self.ports.get_mut(id.index())?.take()?;
        self.free.insert(id);
        Some(port)
    }

    pub(super) fn get(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(id.index())?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PortId, &Port)> {
        let slots = self.ports.iter().enumerate();
        slots.filter_map(|(index, port)| Some((PortId::new(index)?, port.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PortId, &mut Port)> {
        let slots = self.ports.iter_mut().enumerate();
        slots.filter_map(|(index, port)| Some((PortId::new(index)?, port.as_mut()?)))
    }
}
