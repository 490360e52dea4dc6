//! What is known of the host before anything is changed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hub_protocol::mac::Mac;

use super::journal::{Journal, Store};
use super::nft::Nft;
use super::request::{Reach, Request};
use super::routers::{Router, learned};
use super::step::Family;
use crate::host::netlink::{Address, LinkRow, Netlink, Route};
use crate::host::sysctl::{self, Setting};
use crate::instance::Macs;

/// What the plan for a bridge depends on.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) links: Vec<LinkRow>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
    pub(super) journals: Vec<Journal>,
    /// The interface that is asked for.
    pub(super) interface: Option<Interface>,
    /// The settings that forwarding changes.
    pub(super) forwarding: Vec<Setting>,
    /// Is there a table of nft with the name of the bridge's? `None` if there can't be or need be one.
    pub(super) has_table: Option<bool>,
    /// For a bridge that has no interface to take it from.
    pub(super) mac: Mac,
    /// Since the boot, in seconds.
    pub(super) uptime: u32,
}

/// An interface to take over.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) link: LinkRow,
    pub(super) is_wireless: bool,
    pub(super) settings: Vec<Setting>,
    pub(super) routers: Vec<Router>,
}

/// Where settings of each interface are.
pub(super) const PER_INTERFACE: [&str; 2] = ["ipv4/conf", "ipv6/conf"];

impl Facts {
    pub(super) fn gather(request: &Request, store: &Store) -> Result<Self> {
        let mut netlink = Netlink::open().context("ask the kernel by netlink")?;
        let links = netlink.links().context("list the links")?;
        let (interface, has_table) = match &request.reach {
            Reach::Lan(name) => (Interface::find(name, &mut netlink)?, None),
            Reach::Nat(_) => {
                let nft = Nft::find().context(
                    "NAT needs the program nft, which is not installed; install the package nftables, or give --no-nat",
                )?;
                (None, Some(nft.has_table(&request.name)?))
            }
            Reach::Host(_) => (None, Nft::find().and_then(|nft| nft.has_table(&request.name).ok())),
        };
        Ok(Self {
            links,
            addresses: netlink.addresses(None).context("list the addresses")?,
            routes: netlink.routes(None).context("list the routes")?,
            journals: store
                .journal(&request.name)?
                .into_iter()
                .chain(store.others(&request.name)?.readable)
                .collect(),
            interface,
            forwarding: forwarding_settings().context("read how packets are forwarded")?,
            has_table,
            mac: Macs::of("qhub bridge").of_vm(request.name.as_str()),
            uptime: uptime()?,
        })
    }
}

impl Interface {
    fn find(name: &str, netlink: &mut Netlink) -> Result<Option<Self>> {
        let found = netlink.link(name).with_context(|| format!("ask for {name}"))?;
        Ok(found.map(|link| Self {
            is_wireless: is_wireless(&link),
            routers: learned(&link.name),
            settings: PER_INTERFACE
                .iter()
                .flat_map(|folder| sysctl::of_interface(folder, &link.name))
                .collect(),
            link,
        }))
    }
}

/// `/sys` may show another network namespace than ours.
fn is_wireless(link: &LinkRow) -> bool {
    let folder = Path::new("/sys/class/net").join(&link.name);
    let index = fs::read_to_string(folder.join("ifindex")).ok();
    index.and_then(|index| index.trim().parse().ok()) == Some(link.index) && folder.join("phy80211").exists()
}

/// The kernel sets some of these with the first, others have to be set for it.
fn forwarding_settings() -> std::io::Result<Vec<Setting>> {
    let mut paths = [Family::V4, Family::V6].map(|family| family.forwarding().to_owned()).to_vec();
    for folder in PER_INTERFACE {
        for interface in sysctl::names(folder) {
            paths.extend(["forwarding", "accept_ra"].map(|key| format!("{folder}/{interface}/{key}")));
        }
    }
    paths.push("ipv4/conf/all/accept_redirects".to_owned());
    let settings = paths.iter().map(|path| Setting::read(path));
    settings.filter_map(std::io::Result::transpose).collect()
}

/// How long ago the host was booted, in seconds.
pub(super) fn uptime() -> Result<u32> {
    let text = fs::read_to_string("/proc/uptime").context("read /proc/uptime")?;
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse().ok());
    seconds.context("/proc/uptime has no number")
}
