//! The numbered ports of a VDE switch: which of them a client gets.
//!
//! A client that asks for no number gets the first free one; one that asks for a number that is in use
//! shares that port. A port goes with its last client, unless it was made to stay.

use std::collections::BTreeMap;
use std::fmt;

use nix::errno::Errno;

use super::control::PortTraffic;
use crate::bridge::{MAX_PORTS, PortId};

/// The numbered ports.
#[derive(Debug)]
pub struct PortPlan {
    limit: u16,
    ports: BTreeMap<u16, PlannedPort>,
}

/// A numbered port.
#[derive(Debug)]
pub struct PlannedPort {
    /// May who asks for no number get it?
    pub(super) is_allocatable: bool,
    /// Who else than root may join it, if not everybody.
    pub(super) user: Option<u32>,
    /// The users of which group may.
    pub(super) group: Option<u32>,
    /// Does it stay without a client?
    is_kept: bool,
    /// Those that are plugged in, the first one first.
    pub(super) members: Vec<PortId>,
    /// What those did that have left.
    pub(super) earlier: PortTraffic,
    /// What had been done when its counters were last reset.
    pub(super) reset: PortTraffic,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Applicant {
    /// The user.
    pub(super) uid: u32,
    /// The groups.
    pub(super) groups: Vec<u32>,
}

/// Why a client gets no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPort {
    /// It asked for this number, above the highest one.
    TooHigh(u32, u16),
    /// All up to this one are in use.
    Full(u16),
    /// This one is for others.
    Forbidden(u16),
}

impl fmt::Display for NoPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooHigh(port, limit) => write!(f, "there is no port {port}; the highest is {limit}"),
            Self::Full(limit) => write!(f, "all {limit} ports are in use"),
            Self::Forbidden(port) => write!(f, "port {port} is for another user"),
        }
    }
}

impl std::error::Error for NoPort {}

impl Default for PlannedPort {
    fn default() -> Self {
        Self {
            is_allocatable: true,
            user: None,
            group: None,
            is_kept: false,
            members: Vec::new(),
            earlier: PortTraffic::default(),
            reset: PortTraffic::default(),
        }
    }
}

impl PlannedPort {
    /// Is somebody plugged in?
    pub fn is_active(&self) -> bool {
        !self.members.is_empty()
    }

    fn admits(&self, applicant: &Applicant) -> bool {
        let is_open = self.user.is_none() && self.group.is_none();
        is_open
            || applicant.uid == 0
            || self.user == Some(applicant.uid)
            || self.group.is_some_and(|group| applicant.groups.contains(&group))
    }
}

impl PortPlan {
    /// A plan of ports up to the number `limit`.
    pub fn new(limit: u16) -> Self {
        Self { limit, ports: BTreeMap::new() }
    }

    /// The highest number.
    pub fn limit(&self) -> u16 {
        self.limit
    }

    /// The ports that there are, by their numbers.
    pub fn ports(&self) -> impl Iterator<Item = (u16, &PlannedPort)> {
        self.ports.iter().map(|(&number, port)| (number, port))
    }

    /// Sets the highest number.
    ///
    /// # Errors
    ///
    /// `EINVAL` for 0 or more than a hub has, `EADDRINUSE` when there is a port above it.
    pub fn set_limit(&mut self, limit: u16) -> Result<(), Errno> {
        match self.ports.keys().next_back() {
            _ if limit == 0 || usize::from(limit) > MAX_PORTS => Err(Errno::EINVAL),
            Some(&highest) if highest > limit => Err(Errno::EADDRINUSE),
            _ => {
                self.limit = limit;
                Ok(())
            }
        }
    }

    /// Makes a port that stays, for those who ask for it.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the limit, `EEXIST` when it is there.
    pub fn create(&mut self, number: u16) -> Result<(), Errno> {
        if number == 0 || number > self.limit {
            return Err(Errno::EINVAL);
        }
        if self.ports.contains_key(&number) {
            return Err(Errno::EEXIST);
        }
        let port = PlannedPort { is_kept: true, is_allocatable: false, ..PlannedPort::default() };
        self.ports.insert(number, port);
        Ok(())
    }

    /// The same with the first free number.
    ///
    /// # Errors
    ///
    /// `ENOSPC` when there is none.
    pub fn create_auto(&mut self) -> Result<u16, Errno> {
        let number = (1..=self.limit).find(|number| !self.ports.contains_key(number)).ok_or(Errno::ENOSPC)?;
        self.create(number).map(|()| number)
    }

    /// Takes a port away.
    ///
    /// # Errors
    ///
    /// `ENXIO` when there is none, `EADDRINUSE` while somebody is plugged in.
    pub fn remove(&mut self, number: u16) -> Result<(), Errno> {
        if self.port_mut(number)?.is_active() {
            return Err(Errno::EADDRINUSE);
        }
        self.ports.remove(&number);
        Ok(())
    }

    /// Is any port for the users of a group?
    pub(super) fn has_groups(&self) -> bool {
        self.ports.values().any(|port| port.group.is_some())
    }

    /// Lets a port be given to who asks for none, or only to who asks for it.
    ///
    /// # Errors
    ///
    /// `ENXIO` when there is none.
    pub fn set_allocatable(&mut self, number: u16, is_allocatable: bool) -> Result<(), Errno> {
        self.keep(number)?.is_allocatable = is_allocatable;
        Ok(())
    }

    /// Says who else than root may join a port, if not everybody.
    ///
    /// # Errors
    ///
    /// `ENXIO` when there is none.
    pub fn set_user(&mut self, number: u16, user: Option<u32>) -> Result<(), Errno> {
        self.keep(number)?.user = user;
        Ok(())
    }

    /// Says the users of which group may join a port.
    ///
    /// # Errors
    ///
    /// `ENXIO` when there is none.
    pub fn set_group(&mut self, number: u16, group: Option<u32>) -> Result<(), Errno> {
        self.keep(number)?.group = group;
        Ok(())
    }

    /// What is said of a port holds for whoever joins it later, too.
    fn keep(&mut self, number: u16) -> Result<&mut PlannedPort, Errno> {
        let port = self.port_mut(number)?;
        port.is_kept = true;
        Ok(port)
    }

    /// A port that there is.
    ///
    /// # Errors
    ///
    /// `ENXIO` when there is none.
    pub(super) fn port_mut(&mut self, number: u16) -> Result<&mut PlannedPort, Errno> {
        self.ports.get_mut(&number).ok_or(Errno::ENXIO)
    }

    /// The number that `applicant` gets who asks for the port `wanted`, or for any.
    ///
    /// # Errors
    ///
    /// Why it gets none.
    pub(super) fn choose(&self, wanted: Option<u32>, applicant: &Applicant) -> Result<u16, NoPort> {
        let is_free = |number: &u16| {
            let port = self.ports.get(number);
            port.is_none_or(|port| port.is_allocatable && !port.is_active() && port.admits(applicant))
        };
        let Some(wanted) = wanted else {
            return (1..=self.limit).find(is_free).ok_or(NoPort::Full(self.limit));
        };
        let number = u16::try_from(wanted).ok().filter(|&number| number <= self.limit);
        let number = number.ok_or(NoPort::TooHigh(wanted, self.limit))?;
        let is_admitted = self.ports.get(&number).is_none_or(|port| port.admits(applicant));
        if is_admitted { Ok(number) } else { Err(NoPort::Forbidden(number)) }
    }

    /// Plugs `id` into the port `number`, and says who was there first.
    pub(super) fn enter(&mut self, number: u16, id: PortId) -> Option<PortId> {
        let port = self.ports.entry(number).or_default();
        port.members.push(id);
        port.members.first().copied().filter(|&first| first != id)
    }

    /// The number that `id` is plugged into.
    pub(super) fn number_of(&self, id: PortId) -> Option<u16> {
        self.ports().find_map(|(number, port)| port.members.contains(&id).then_some(number))
    }

    /// `id` is gone, after it did this much.
    pub(super) fn leave(&mut self, id: PortId, traffic: PortTraffic) {
        let Some(number) = self.number_of(id) else { return };
        let Some(port) = self.ports.get_mut(&number) else { return };
        port.members.retain(|&member| member != id);
        port.earlier += traffic;
        if !port.is_active() && !port.is_kept {
            self.ports.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: usize) -> PortId {
        PortId::new(index).unwrap()
    }

    fn user(uid: u32, groups: &[u32]) -> Applicant {
        Applicant { uid, groups: groups.to_vec() }
    }

    #[test]
    fn numbers_fill_the_first_gap_and_end_at_the_limit() {
        let (mut plan, anybody) = (PortPlan::new(3), user(1, &[]));
        for expected in 1..=3 {
            assert_eq!(plan.choose(None, &anybody), Ok(expected));
            assert_eq!(plan.enter(expected, id(usize::from(expected))), None);
        }
        assert_eq!(plan.choose(None, &anybody), Err(NoPort::Full(3)));
        plan.leave(id(2), PortTraffic::default());
        assert_eq!(plan.choose(None, &anybody), Ok(2));
        assert_eq!(plan.choose(Some(3), &anybody), Ok(3), "it is shared");
        assert_eq!(plan.choose(Some(4), &anybody), Err(NoPort::TooHigh(4, 3)));
        assert_eq!(plan.choose(Some(0xff_ffff), &anybody), Err(NoPort::TooHigh(0xff_ffff, 3)));
        assert_eq!(plan.choose(Some(0), &anybody), Ok(0));
        assert_eq!(plan.set_limit(2), Err(Errno::EADDRINUSE));
        assert_eq!(plan.set_limit(0), Err(Errno::EINVAL));
        assert_eq!((plan.set_limit(1025), plan.set_limit(1024)), (Err(Errno::EINVAL), Ok(())));
        assert_eq!(plan.set_limit(4), Ok(()));
        assert_eq!(plan.choose(Some(4), &anybody), Ok(4));
    }

    #[test]
    fn a_port_is_shared_until_the_last_has_left() {
        let mut plan = PortPlan::new(9);
        assert_eq!(plan.enter(5, id(0)), None);
        assert_eq!(plan.enter(5, id(1)), Some(id(0)));
        plan.leave(id(0), PortTraffic::default());
        assert_eq!((plan.number_of(id(0)), plan.number_of(id(1))), (None, Some(5)));
        assert_eq!(plan.enter(5, id(2)), Some(id(1)));
        plan.leave(id(1), PortTraffic::default());
        plan.leave(id(2), PortTraffic::default());
        assert_eq!(plan.ports().count(), 0);
    }

    #[test]
    fn a_port_that_was_made_stays_and_is_not_given_away() {
        let (mut plan, anybody) = (PortPlan::new(3), user(1, &[]));
        assert_eq!(plan.create(1), Ok(()));
        assert_eq!(plan.create(1), Err(Errno::EEXIST));
        assert_eq!((plan.create(0), plan.create(4)), (Err(Errno::EINVAL), Err(Errno::EINVAL)));
        assert_eq!(plan.choose(None, &anybody), Ok(2));
        plan.set_allocatable(1, true).unwrap();
        assert_eq!(plan.choose(None, &anybody), Ok(1));
        plan.enter(1, id(0));
        assert_eq!(plan.remove(1), Err(Errno::EADDRINUSE));
        plan.leave(id(0), PortTraffic::default());
        assert_eq!((plan.remove(1), plan.remove(1)), (Ok(()), Err(Errno::ENXIO)));
        for number in 1..=3 {
            assert_eq!(plan.create_auto(), Ok(number));
        }
        assert_eq!(plan.create_auto(), Err(Errno::ENOSPC));
    }

    #[test]
    fn what_is_said_of_a_port_outlives_its_client() {
        let mut plan = PortPlan::new(3);
        plan.enter(1, id(0));
        plan.set_user(1, Some(7)).unwrap();
        plan.leave(id(0), PortTraffic::default());
        assert_eq!(plan.choose(Some(1), &user(8, &[])), Err(NoPort::Forbidden(1)));
        assert_eq!(plan.choose(None, &user(8, &[])), Ok(2));
        assert_eq!(plan.set_user(2, None), Err(Errno::ENXIO));
    }

    #[test]
    fn a_port_may_be_for_a_user_or_a_group() {
        let mut plan = PortPlan::new(3);
        plan.create(1).unwrap();
        plan.set_user(1, Some(7)).unwrap();
        plan.set_group(1, Some(70)).unwrap();
        plan.set_allocatable(1, true).unwrap();
        for (applicant, is_admitted) in [
            (user(0, &[]), true),
            (user(7, &[]), true),
            (user(8, &[1, 70]), true),
            (user(8, &[7]), false),
            (user(70, &[]), false),
        ] {
            let expected = if is_admitted { Ok(1) } else { Err(NoPort::Forbidden(1)) };
            assert_eq!(plan.choose(Some(1), &applicant), expected, "{applicant:?}");
            assert_eq!(plan.choose(None, &applicant), Ok(if is_admitted { 1 } else { 2 }));
        }
    }
}
