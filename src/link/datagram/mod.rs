//! Datagram links: one datagram is one frame (QEMU `net/dgram.c`, `net/socket.c`, `net/l2tpv3.c`).
//!
//! No datagram ends a link, and none of zero octets is ever sent: QEMU takes that for the end. What
//! the system drops before it can be received is counted where the system tells (`SO_RXQ_OVFL`).
//!
//! * [`DatagramLink`]: one peer, through a socket that is connected to it.
//! * [`DatagramServer`]: a socket that anybody sends to, where new peers are met.
//! * [`MulticastLink`]: a bus of many.

mod link;
mod many;
mod multicast;
mod server;
mod socket;
mod source;

pub use link::DatagramLink;
pub use multicast::MulticastLink;
pub use server::{Arrival, DatagramServer};
pub(super) use socket::DatagramSocket;
pub use source::Source;
