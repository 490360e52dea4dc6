//! Why a frame was not delivered, and how often: every drop has a name and a counter.

use std::fmt;

/// Why a frame, or one copy of it, went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiscardReason {
    /// It had no octets; passed on, it would wedge a QEMU receiver for good.
    Empty,
    /// It was shorter than an Ethernet header.
    Runt,
    /// It was longer than the `max-frame` of the port that it came from or would have left by.
    TooBig,
    /// A PAUSE frame, which concerns one link only.
    Pause,
    /// Its destination is on the port that it came from.
    SamePort,
    /// There was no other port.
    NoPort,
    /// The queue of its egress port was full.
    QueueFull,
    /// The memory for all queues was spent and this one was the longest.
    MemoryFull,
    /// Its egress port closed before it was sent.
    Closed,
    /// The peer of its egress port was not there.
    Down,
    /// The system refused to send it.
    Refused,
    /// The system had no room for it before it could be received.
    Overrun,
    /// It came from an address whose datagrams are not wanted.
    Stranger,
    /// It came from a new address, for which there was no place.
    NoPlace,
    /// It was no data message of L2TPv3.
    BadHeader,
    /// It belonged to another session of L2TPv3.
    WrongSession,
    /// It had the wrong cookie of L2TPv3.
    WrongCookie,
    /// What it left to be done to it did not fit it.
    BadOffload,
    /// It came in on a port that closes a loop.
    Loop,
}

impl DiscardReason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 19] = [
        Self::Empty,
        Self::Runt,
        Self::TooBig,
        Self::Pause,
        Self::SamePort,
        Self::NoPort,
        Self::QueueFull,
        Self::MemoryFull,
        Self::Closed,
        Self::Down,
        Self::Refused,
        Self::Overrun,
        Self::Stranger,
        Self::NoPlace,
        Self::BadHeader,
        Self::WrongSession,
        Self::WrongCookie,
        Self::BadOffload,
        Self::Loop,
    ];

    /// The name that counters and tables show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Runt => "runt",
            Self::TooBig => "too_big",
            Self::Pause => "pause",
            Self::SamePort => "same_port",
            Self::NoPort => "no_port",
            Self::QueueFull => "queue_full",
            Self::MemoryFull => "memory_full",
            Self::Closed => "closed",
            Self::Down => "down",
            Self::Refused => "refused",
            Self::Overrun => "overrun",
            Self::Stranger => "stranger",
            Self::NoPlace => "no_place",
            Self::BadHeader => "bad_header",
            Self::WrongSession => "wrong_session",
            Self::WrongCookie => "wrong_cookie",
            Self::BadOffload => "bad_offload",
            Self::Loop => "loop",
        }
    }
}

/// Frames dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; DiscardReason::ALL.len()]);

impl Drops {
    /// Counts `frames` more.
    pub fn add(&mut self, reason: DiscardReason, frames: u64) {
        self.0[reason as usize] += frames;
    }

    /// Frames dropped for `reason`.
    pub fn count(&self, reason: DiscardReason) -> u64 {
        self.0[reason as usize]
    }

    /// Adds other frames.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Frames dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Drops {
    /// The reasons that occurred, as `runt=3 queue_full=17`; `-` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for reason in DiscardReason::ALL {
            let count = self.count(reason);
            if count > 0 {
                write!(f, "{gap}{}={count}", reason.name())?;
                gap = " ";
            }
        }
        if gap.is_empty() { write!(f, "-") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        let mut drops = Drops::default();
        assert_eq!(drops.to_string(), "-");
        for (weight, reason) in (1..).zip(DiscardReason::ALL) {
            drops.add(reason, weight);
        }
        for (weight, reason) in (1..).zip(DiscardReason::ALL) {
            assert_eq!(drops.count(reason), weight);
            assert!(drops.to_string().contains(&format!("{}={weight}", reason.name())));
        }
        assert_eq!(drops.total(), 190);
    }
}
