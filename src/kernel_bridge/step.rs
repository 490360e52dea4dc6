//! The steps that a bridge is made in: plain data, as the journal keeps them.

use std::fmt;

use hub_protocol::mac::Mac;
use serde::{Deserialize, Serialize};

use super::request::BridgeName;
use crate::config::Cidr;
use crate::host::netlink::{Address, Route};
use crate::host::sysctl::Setting;

/// A change of the host's network. Each can be undone whether it has been done, half done, or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Step {
    /// The bridge itself. What follows goes with it, where nothing else is said.
    Bridge { mac: [u8; 6], mtu: Option<u32> },
    /// Settings of the bridge, before it is up.
    Settings(Vec<Setting>),
    /// Addresses for this host.
    Addresses(Vec<Cidr>),
    /// From here on it forwards.
    Up,
    /// A table of nft that gives the VMs this host's address outside. Is deleted.
    Nat(Vec<Cidr>),
    /// A table of nft that keeps the VMs to themselves, even if this host forwards. Is deleted.
    Isolation,
    /// The host passes packets on. Is put back when no other bridge needs it.
    Forwarding(Forwarding),
    /// An interface becomes a port.
    Port { interface: String },
    /// Addresses and routes of an interface become the bridge's. They are given back.
    Takeover(Takeover),
}

/// The forwarding of packets of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Forwarding {
    pub(super) family: Family,
    /// What changes with it, as it was before any bridge of qhub's.
    pub(super) before: Vec<Setting>,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Family {
    V4,
    V6,
}

/// What an interface had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Takeover {
    pub(super) interface: String,
    pub(super) index: u32,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
    /// Routes that only the kernel can make.
    pub(super) learned: Vec<Route>,
    /// When that was, in seconds since the boot: some of it lives for a time only.
    pub(super) uptime: u32,
}

impl Step {
    pub(super) fn forwarding(&self) -> Option<&Forwarding> {
        if let Self::Forwarding(forwarding) = self { Some(forwarding) } else { None }
    }

    pub(super) fn takeover(&self) -> Option<&Takeover> {
        if let Self::Takeover(takeover) = self { Some(takeover) } else { None }
    }

    /// Does it make a table of nft?
    pub(super) fn has_table(&self) -> bool {
        matches!(self, Self::Nat(_) | Self::Isolation)
    }

    /// What is being done, for an error.
    pub(super) fn describe(&self, bridge: &BridgeName) -> String {
        match self {
            Self::Bridge { mac, .. } => {
                format!("make the bridge {bridge} with the MAC address {}", Mac(*mac))
            }
            Self::Settings(_) => format!("set up {bridge}"),
            Self::Addresses(addresses) => format!("give {bridge} {}", List(addresses)),
            Self::Up => format!("bring {bridge} up"),
            Self::Nat(_) => "set up NAT by nft".to_owned(),
            Self::Isolation => format!("isolate {bridge} by nft"),
            Self::Forwarding(Forwarding { family: Family::V4, .. }) => "forward IPv4".to_owned(),
            Self::Forwarding(Forwarding { family: Family::V6, .. }) => "forward IPv6".to_owned(),
            Self::Port { interface } => format!("make {interface} a port of {bridge}"),
            Self::Takeover(takeover) => {
                format!("move the addresses and routes of {} to {bridge}", takeover.interface)
            }
        }
    }
}

impl Takeover {
    /// What it is, for an error.
    pub(super) fn contents(&self) -> String {
        match self.addresses.as_slice() {
            [] => format!("its routes ({})", List(&self.routes)),
            addresses => List(addresses).to_string(),
        }
    }
}

impl Family {
    pub(super) fn of(cidr: &Cidr) -> Self {
        if cidr.ip().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The setting that sets all others of its kind.
    pub(super) fn forwarding(self) -> &'static str {
        match self {
            Self::V4 => "ipv4/ip_forward",
            Self::V6 => "ipv6/conf/all/forwarding",
        }
    }

    /// Where its settings are.
    pub(super) fn settings(self) -> &'static str {
        match self {
            Self::V4 => "ipv4/",
            Self::V6 => "ipv6/",
        }
    }
}

/// Things with commas between them.
pub(super) struct List<'a, T>(pub(super) &'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
