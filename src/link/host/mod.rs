//! Links to this host's own network: TAPs, macvtaps and packet sockets, and how each is opened.

mod helper;
mod macvtap;
mod open;
mod packet;
mod receive;
mod tap;
mod transmit;

use anyhow::{Error, anyhow};

pub use packet::PacketLink;
pub use tap::TapLink;

use crate::config::InterfaceName;

/// Why the cable of `interface` can't be joined.
fn no_ethernet(interface: &InterfaceName) -> Error {
    anyhow!("{interface} carries no Ethernet; name a card, a bridge or the like ('ip link' says link/ether)")
}
