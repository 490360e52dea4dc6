//! Wire formats of qhub: bytes to values and back.
//!
//! No I/O, no clock, no allocation on the packet path; one file per format.
//!
//! * [`mac`]: 48-bit addresses.
//! * [`ethernet`]: the header of a frame (IEEE 802.3, 802.1Q tags).
//! * [`stream`]: QEMU's framing of Ethernet on a byte stream.
//! * [`plug`]: vde_plug's framing of Ethernet on a pipe.
//! * [`l2tpv3`]: the header that L2TPv3 puts in front of a frame in a UDP datagram.
//! * [`vde`]: how a client joins a VDE switch.
//! * [`checksum`]: the checksum of IP, TCP and UDP.
//! * [`vnet`]: what an interface leaves to be done with a frame.
//! * [`gso`]: one frame that stands for several, cut.
//! * [`gro`]: several frames, joined to one that stands for them.

#![forbid(unsafe_code)]

pub mod checksum;
pub mod ethernet;
pub mod gro;
pub mod gso;
pub mod l2tpv3;
pub mod mac;
mod octets;
pub mod plug;
#[cfg(test)]
mod sample;
pub mod stream;
pub mod vde;
pub mod vnet;
