//! The steps, done and undone in the kernel.

use std::io;

use anyhow::{Context, Error, Result, bail};
use hub_protocol::mac::Mac;
use nix::libc;

use super::facts::uptime;
use super::journal::Journal;
use super::nft::Nft;
use super::run::Executor;
use super::step::{Family, Forwarding, Step};
use super::takeover::{give_back, take_over};
use crate::config::Cidr;
use crate::host::netlink::{Address, LinkRow, Netlink, errno};
use crate::host::sysctl::Setting;

/// The network namespace of this thread.
pub(super) struct Kernel {
    pub(super) netlink: Netlink,
    /// That of the bridge, with its number from when it is made.
    pub(super) journal: Journal,
    /// The kinds of packets that other bridges of qhub's have the host forward.
    pub(super) forwarded_by_others: Vec<Family>,
}

impl Kernel {
    pub(super) fn open(journal: Journal, forwarded_by_others: Vec<Family>) -> Result<Self> {
        let netlink = Netlink::open().context("ask the kernel by netlink")?;
        Ok(Self { netlink, journal, forwarded_by_others })
    }

    fn bridge(&mut self) -> Result<LinkRow> {
        self.find_bridge()?.with_context(|| format!("the bridge {} is gone", self.journal.bridge))
    }

    fn find_bridge(&mut self) -> Result<Option<LinkRow>> {
        let links = self.netlink.links()?;
        Ok(links.into_iter().find(|link| self.journal.is_bridge(link)))
    }

    fn make(&mut self, mac: Mac, mtu: Option<u32>) -> Result<()> {
        self.netlink.add_bridge(self.journal.bridge.as_str(), Some(mac))?;
        let index = self.bridge()?.index;
        self.journal.index = Some(index);
        if let Some(mtu) = mtu {
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
        self.netlink.set_master(port.index, Some(bridge)).map_err(|error| {
            let is_busy = errno(&error) == Some(libc::EBUSY);
            let error = Error::new(error);
            if is_busy {
                error.context("a macvlan or macvtap of it, or another bridge, has it")
            } else {
                error
            }
        })
    }

    fn delete(&mut self) -> Result<()> {
        match self.find_bridge()? {
            Some(bridge) => ignore(self.netlink.delete_link(bridge.index), &[libc::ENODEV]),
            None => Ok(()),
        }
    }
}

impl Executor for Kernel {
    fn apply(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Bridge { mac, mtu } => self.make(Mac(*mac), *mtu),
            Step::Settings(settings) => write_all(settings),
            Step::Addresses(addresses) => self.add_addresses(addresses),
            Step::Up => {
                let index = self.bridge()?.index;
                Ok(self.netlink.set_up(index)?)
            }
            Step::Nat(inside) => nft()?.translate(&self.journal.bridge, inside),
            Step::Isolation => nft()?.isolate(&self.journal.bridge),
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
            // Without nft there is no other way to delete what may be left.
            Step::Nat(_) | Step::Isolation => {
                Nft::find().map_or(Ok(()), |nft| nft.delete(&self.journal.bridge))
            }
            Step::Forwarding(forwarding) if self.forwarded_by_others.contains(&forwarding.family) => Ok(()),
            Step::Forwarding(forwarding) => stop_forwarding(forwarding),
            Step::Takeover(takeover) => {
                let bridge = self.find_bridge()?;
                let mac = self.journal.mac();
                give_back(&mut self.netlink, takeover, mac, bridge.as_ref(), uptime()?)
            }
        }
    }
}

fn nft() -> Result<Nft> {
    Nft::find().context("the program nft is gone; install the package nftables")
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
