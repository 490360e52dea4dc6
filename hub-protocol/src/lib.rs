//! Wire formats of qhub: bytes to values and back.
//!
//! No I/O, no clock, no allocation on the packet path; one file per format.
//!
//! * [`mac`]: 48-bit addresses.
//! * [`ethernet`]: the header of a frame (IEEE 802.3, 802.1Q tags).
//! * [`stream`]: QEMU's framing of Ethernet on a byte stream.
//! * [`l2tpv3`]: the header that L2TPv3 puts in front of a frame in a UDP datagram.

#![forbid(unsafe_code)]

pub mod ethernet;
pub mod l2tpv3;
pub mod mac;
pub mod stream;
