//! VDE: a datagram socket for each client, one datagram a frame, and a stream socket that stays open as
//! long as the client is there.
//!
//! A client comes to the socket `ctl` of the switch's folder, names a datagram socket of its own, and is
//! named one in return that is there for it alone. Both are connected to each other, so that nobody else can
//! send to them, and that the system bounds what is on its way by octets rather than to a handful of
//! datagrams. A client's socket blocks as a rule: QEMU stands still while it is not read.

mod folder;
mod greeting;
mod joining;
mod link;
mod reach;
mod switch;

pub use greeting::Greeting;
pub use joining::Joining;
pub use link::VdeLink;
pub use switch::VdeSwitch;
pub(crate) use switch::find_group;
