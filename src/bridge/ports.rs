//! Names of ports: one, and a set of them.

use std::fmt;

/// The most ports that a bridge can have.
pub const MAX_PORTS: usize = 1024;

/// A port of the bridge: an index below [`MAX_PORTS`], used again after the port is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(u16);

impl PortId {
    /// The port with this index; `None` beyond the last.
    pub fn new(index: usize) -> Option<Self> {
        if index >= MAX_PORTS {
            return None;
        }
        u16::try_from(index).ok().map(Self)
    }

    /// The port's index, below [`MAX_PORTS`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Debug for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

const WORDS: usize = MAX_PORTS / 64;

/// A set of ports.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PortSet([u64; WORDS]);

impl PortSet {
    /// Adds `port`.
    pub fn insert(&mut self, port: PortId) {
        self.0[port.index() / 64] |= 1 << (port.index() % 64);
    }

    /// Takes `port` out.
    pub fn remove(&mut self, port: PortId) {
        self.0[port.index() / 64] &= !(1 << (port.index() % 64));
    }

    /// Is `port` in the set?
    pub fn contains(&self, port: PortId) -> bool {
        self.0[port.index() / 64] & (1 << (port.index() % 64)) != 0
    }

    /// Is no port in the set?
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// The only port of the set; `None` when there is none or more than one.
    pub fn only(&self) -> Option<PortId> {
        let mut ports = self.iter();
        ports.next().filter(|_| ports.next().is_none())
    }

    /// The ports in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PortId> {
        (0_u16..).step_by(64).zip(self.0).flat_map(|(base, mut word)| {
            std::iter::from_fn(move || {
                let bit = u16::try_from(word.trailing_zeros()).ok().filter(|&bit| bit < 64)?;
                word &= word - 1;
                Some(PortId(base + bit))
            })
        })
    }
}

impl FromIterator<PortId> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortId>>(ports: I) -> Self {
        let mut set = Self::default();
        for port in ports {
            set.insert(port);
        }
        set
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_end_at_the_last_port() {
        assert_eq!(PortId::new(1023).map(PortId::index), Some(1023));
        assert_eq!(PortId::new(1024), None);
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let ids: Vec<PortId> = [0, 63, 64, 1023].into_iter().filter_map(PortId::new).collect();
        let mut set: PortSet = ids.iter().copied().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), ids);
        assert_eq!(set.only(), None);
        for &gone in &ids[1..] {
            assert!(set.contains(gone));
            set.remove(gone);
            assert!(!set.contains(gone));
        }
        assert_eq!(set.only(), Some(ids[0]));
        set.remove(ids[0]);
        assert!(set.is_empty() && set.only().is_none());
    }
}
