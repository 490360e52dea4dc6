//! What a port counts.

use std::fmt;
use std::time::Duration;

use super::as_u64;
use crate::batch::Taken;
use crate::discard::Drops;

/// What a port has moved and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received, dropped ones included.
    pub rx_frames: u64,
    /// Their octets, without the framing of the transport.
    pub rx_bytes: u64,
    /// Frames sent; one counts with its first octet.
    pub tx_frames: u64,
    /// Their octets.
    pub tx_bytes: u64,
    /// Frames of this port's peer, and copies for it, that were dropped.
    pub drops: Drops,
    /// How long its queue was over the high mark.
    pub congested: Duration,
    /// How long nobody waited for it because its pause budget was spent.
    pub overloaded: Duration,
}

impl Counters {
    pub(super) fn count_sent(&mut self, taken: Taken) {
        self.tx_frames += as_u64(taken.frames);
        self.tx_bytes += as_u64(taken.payload());
    }

    /// Adds what another port has moved and dropped.
    pub fn add(&mut self, other: &Self) {
        self.rx_frames += other.rx_frames;
        self.rx_bytes += other.rx_bytes;
        self.tx_frames += other.tx_frames;
        self.tx_bytes += other.tx_bytes;
        self.drops.merge(&other.drops);
        self.congested += other.congested;
        self.overloaded += other.overloaded;
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rx {} frames {} bytes, tx {} frames {} bytes, dropped {} ({}), congested {} ms, overloaded {} ms",
            self.rx_frames,
            self.rx_bytes,
            self.tx_frames,
            self.tx_bytes,
            self.drops.total(),
            self.drops,
            self.congested.as_millis(),
            self.overloaded.as_millis()
        )
    }
}
