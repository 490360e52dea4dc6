//! Links to this host's own network: TAPs, macvtaps and packet sockets, and how each is opened.

mod helper;
mod macvtap;
mod open;
mod packet;
mod receive;
mod tap;
mod transmit;

pub use packet::PacketLink;
pub use tap::TapLink;
