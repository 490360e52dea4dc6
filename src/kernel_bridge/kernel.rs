//! The steps, done and undone in the kernel.

use std::io;

use anyhow::{Context, Result, bail};
use hub_protocol::mac::Mac;
use nix::libc;

use super::facts::uptime;
use super::nft::Nft;
use super::request::BridgeName;
use super::run::Executor;
use super::step::{Family, Forwarding, Step};
use super::takeover::{give_back, take_over};
use crate::config::Cidr;
use crate::host::netlink::{Address, LinkRow, Netlink, errno};
use crate::host::sysctl::Setting;

/// The network namespace of this thread.
pub(super) struct Kernel<'a> {
    pub(super) netlink: Netlink,
    pub(super) bridge: &'a BridgeName,
    /// The kinds of packets that other bridges of qhub's have the host forward.
    pub(super) forwarded_by_others: Vec<Family>,
}

impl<'a> Kernel<'a> {
    pub(super) fn open(bridge: &'a BridgeName, forwarded_by_others: Vec<Family>) -> Result<Self> {
        let netlink = Netlink::open().context("ask the kernel by netlink")?;
        Ok(Self { netlink, bridge, forwarded_by_others })
    }

    fn bridge(&mut self) -> Result<LinkRow> {
        self.find_bridge()?.with_context(|| format!("the bridge {} is gone", self.bridge))
    }

    /// `None` also for a link of another kind that somebody gave the name to.
    fn find_bridge(&mut self) -> Result<Option<LinkRow>> {
        let found = self.netlink.link(self.bridge.as_str())?;
        Ok(found.filter(|link| link.kind.as_deref() == Some("bridge")))
    }

    fn make(&mut self, mac: Mac, mtu: Option<u32>) -> Result<()> {
        self.netlink.add_bridge(self.bridge.as_str(), Some(mac))?;
        if let Some(mtu) = mtu {
            let index = self.bridge()?.index;
            self.netlink.set_mtu(index, mtu)?;
        }
        Ok(())
    }

    fn add_addresses(&mut self, addresses: &[Cidr]) -> Result<()> {
        let index = self.bridge()?.index;
        for cidr in addresses {
            // Nobody can be asked before there is a port.
            let address = Address::new(index, cidr.ip(), cidr.length()).without_probe();
            self.netlink.add_address(&address).with_context(|| cidr.to_string())?;
        }
        Ok(())
    }

    fn enslave(&mut self, interface: &str) -> Result<()> {
        let bridge = self.bridge()?.index;
        let Some(port) = self.netlink.link(interface)? else { bail!("it is gone") };
        Ok(self.netlink.set_master(port.index, Some(bridge))?)
    }

    fn delete(&mut self) -> Result<()> {
        match self.find_bridge()? {
            Some(bridge) => ignore(self.netlink.delete_link(bridge.index), &[libc::ENODEV]),
            None => Ok(()),
        }
    }
}

impl Executor for Kernel<'_> {
    fn apply(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Bridge { mac, mtu } => self.make(Mac(*mac), *mtu),
            Step::Settings(settings) => write_all(settings),
            Step::Addresses(addresses) => self.add_addresses(addresses),
            Step::Up => {
                let index = self.bridge()?.index;
                Ok(self.netlink.set_up(index)?)
            }
            Step::Nat(inside) => Nft::find()?.add(self.bridge, inside),
            Step::Forwarding(forwarding) => forward(forwarding),
            Step::Port { interface } => self.enslave(interface),
            Step::Takeover(takeover) => {
                let bridge = self.bridge()?;
                take_over(&mut self.netlink, takeover, &bridge, uptime()?)
            }
        }
    }

    fn undo(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Bridge { .. } => self.delete(),
            // They go with the bridge, and its ports are free.
            Step::Settings(_) | Step::Addresses(_) | Step::Up | Step::Port { .. } => Ok(()),
            Step::Nat(_) => Nft::find()?.delete(self.bridge),
            Step::Forwarding(forwarding) if self.forwarded_by_others.contains(&forwarding.family) => Ok(()),
            Step::Forwarding(forwarding) => stop_forwarding(forwarding),
            Step::Takeover(takeover) => {
                let bridge = self.find_bridge()?;
                give_back(&mut self.netlink, takeover, bridge.as_ref(), uptime()?)
            }
        }
    }
}

/// Hosts that forward IPv6 do not listen to routers, unless they are told to.
fn forward(forwarding: &Forwarding) -> Result<()> {
    let listening = |setting: &&Setting| setting.path.ends_with("/accept_ra") && setting.value == "1";
    let listeners = forwarding.before.iter().filter(listening);
    let listeners = listeners.map(|setting| Setting::new(&setting.path, "2")).collect::<Vec<_>>();
    write_all(&listeners)?;
    write_all(&[Setting::new(forwarding.family.forwarding(), "1")])
}

/// The first of the settings sets others, which are put right one by one.
fn stop_forwarding(forwarding: &Forwarding) -> Result<()> {
    write_all(&forwarding.before)
}

fn write_all(settings: &[Setting]) -> Result<()> {
    settings.iter().try_for_each(|setting| Ok(setting.write()?))
}

/// Takes an error for success that says that it was so before.
pub(super) fn ignore(result: io::Result<()>, accepted: &[i32]) -> Result<()> {
    match result {
        Err(error) if errno(&error).is_some_and(|errno| accepted.contains(&errno)) => Ok(()),
        result => Ok(result?),
    }
}
