//! Links: what is said of them, and what is asked for.

use std::os::fd::{AsRawFd, BorrowedFd};

use hub_protocol::mac::Mac;
use netlink_packet_core::NLA_F_NESTED;
use nix::libc;

use super::message::{Attribute, Message, attributes, octets, text, text_value, value};
use crate::config::MacvtapMode;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRow {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it carries.
    pub layer: Layer,
    /// Is it up, as its administrator wants it?
    pub is_up: bool,
    /// Can it carry anything: is it up, and its cable in?
    pub is_running: bool,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// The longest packet, without the Ethernet header.
    pub mtu: u32,
    /// Its MAC address, if it has one.
    pub mac: Option<Mac>,
    /// What made it, when that is software: `bridge`, `tun`, `veth`, ...
    pub kind: Option<String>,
    /// Has a TAP four more octets in front of each frame? Its own flags do not say so reliably.
    pub has_packet_information: bool,
}

/// What a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Ethernet frames.
    Ethernet,
    /// What the host sends to itself.
    Loopback,
    /// Packets, or frames of another kind.
    Other,
}

/// A macvtap to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewMacvtap<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number.
    pub index: u32,
    /// The interface whose cable it shares.
    pub lower: u32,
    /// With whom.
    pub mode: MacvtapMode,
    /// Its MAC address; without one, a random one.
    pub mac: Option<Mac>,
    /// The namespace that it is to be in.
    pub netns: BorrowedFd<'a>,
}

impl Message {
    /// Does it say something of the link `index` itself, not of its place in a bridge?
    pub(super) fn is_about(&self, index: u32) -> bool {
        let is_of_links = matches!(self.kind, libc::RTM_NEWLINK | libc::RTM_DELLINK);
        is_of_links && self.header_octet(FAMILY) == 0 && self.header_number(INDEX) == index
    }
}

impl LinkRow {
    pub(super) fn read(message: &Message) -> Option<Self> {
        let flags = message.header_number(FLAGS);
        let info = message.value(libc::IFLA_LINKINFO).and_then(|info| attributes(info).ok());
        let has = |flag: libc::c_int| u32::try_from(flag).is_ok_and(|flag| flags & flag != 0);
        let layer = match message.header.get(TYPE..TYPE + 2)? {
            _ if has(libc::IFF_LOOPBACK) => Layer::Loopback,
            kind if *kind == libc::ARPHRD_ETHER.to_ne_bytes() => Layer::Ethernet,
            _ => Layer::Other,
        };
        Some(Self {
            index: message.header_number(INDEX),
            name: message.text(libc::IFLA_IFNAME)?,
            layer,
            is_up: has(libc::IFF_UP),
            is_running: has(libc::IFF_UP) && has(libc::IFF_RUNNING),
            master: message.number(libc::IFLA_MASTER),
            mtu: message.number(libc::IFLA_MTU).unwrap_or(0),
            mac: message.value(libc::IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()).map(Mac),
            kind: info.as_ref().and_then(|info| value(info, libc::IFLA_INFO_KIND).map(text)),
            has_packet_information: info.is_some_and(|info| has_packet_information(&info)),
        })
    }
}

fn has_packet_information(info: &[Attribute]) -> bool {
    let data = value(info, libc::IFLA_INFO_DATA).and_then(|data| attributes(data).ok());
    data.is_some_and(|data| value(&data, IFLA_TUN_PI).is_some_and(|value| value != [0]))
}

// Where the fields of `ifinfomsg` stand.
const FAMILY: usize = 0;
const TYPE: usize = 2;
const INDEX: usize = 4;
const FLAGS: usize = 8;
const CHANGE: usize = 12;

// `linux/if_link.h`.
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_TUN_PI: u16 = 4;

/// All links, or the one of that name.
pub(super) fn question(name: Option<&str>) -> Message {
    let message = Message::new(libc::RTM_GETLINK, &[0; 16]);
    match name {
        Some(name) => message.with(libc::IFLA_IFNAME, text_value(name)),
        None => message,
    }
}

pub(super) fn of(kind: u16, index: u32) -> Message {
    let mut message = Message::new(kind, &[0; 16]);
    message.set_header_number(INDEX, index);
    message
}

/// The link with the number `index`.
pub(super) fn question_by_index(index: u32) -> Message {
    of(libc::RTM_GETLINK, index)
}

/// Sets flags (`IFF_*`) of a link, and leaves the others.
pub(super) fn with_flags(index: u32, flags: libc::c_int) -> Message {
    let mut message = of(libc::RTM_SETLINK, index);
    let flags = u32::try_from(flags).unwrap_or(0);
    message.set_header_number(FLAGS, flags);
    message.set_header_number(CHANGE, flags);
    message
}

/// A bridge that forwards at once: no spanning tree, no delay.
pub(super) fn bridge(name: &str, mac: Option<Mac>) -> Message {
    let settings = [(IFLA_BR_FORWARD_DELAY, 0_u32), (IFLA_BR_STP_STATE, 0)]
        .map(|(kind, value)| Attribute::new(kind, value.to_ne_bytes()));
    let message = made(name, "bridge", &settings);
    match mac {
        Some(mac) => message.with(libc::IFLA_ADDRESS, mac.0),
        None => message,
    }
}

pub(super) fn macvtap(new: &NewMacvtap<'_>) -> Message {
    let mode: u32 = match new.mode {
        MacvtapMode::Private => 1,
        MacvtapMode::Vepa => 2,
        MacvtapMode::Bridge => 4,
        MacvtapMode::Passthru => 8,
    };
    let mut message = made(new.name, "macvtap", &[Attribute::new(IFLA_MACVLAN_MODE, mode.to_ne_bytes())])
        .with(libc::IFLA_LINK, new.lower.to_ne_bytes())
        .with(libc::IFLA_NET_NS_FD, new.netns.as_raw_fd().to_ne_bytes());
    message.set_header_number(INDEX, new.index);
    match new.mac {
        Some(mac) => message.with(libc::IFLA_ADDRESS, mac.0),
        None => message,
    }
}

fn made(name: &str, kind: &str, settings: &[Attribute]) -> Message {
    let info = [
        Attribute::new(libc::IFLA_INFO_KIND, text_value(kind)),
        Attribute::new(libc::IFLA_INFO_DATA | NLA_F_NESTED, octets(settings)),
    ];
    Message::new(libc::RTM_NEWLINK, &[0; 16])
        .with(libc::IFLA_IFNAME, text_value(name))
        .with(libc::IFLA_LINKINFO | NLA_F_NESTED, octets(&info))
}
