//! Making and opening a TAP, and giving it its place in the host's network.

use std::fs::{File, OpenOptions};
use std::io;

use anyhow::{Context, Result, anyhow, bail};
use hub_protocol::mac::Mac;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::unistd::geteuid;

use super::TapLink;
use crate::config::{InterfaceName, Tap};
use crate::host::namespace;
use crate::host::netlink::{Address, LinkRow, Netlink, errno};
use crate::link::{Peer, sys};

const DEVICE: &str = "/dev/net/tun";

impl TapLink {
    /// Makes or opens `tap`, and gives it what it is to have.
    ///
    /// # Errors
    ///
    /// Whatever the system refuses; says what to do.
    pub fn open(tap: &Tap) -> Result<(Self, Peer)> {
        namespace::within(tap.netns.as_deref(), || {
            let device = open_device()?;
            let name = sys::attach_tap(&device, &tap.name, tap.offload)
                .map_err(|error| explain(error, &tap.name))?;
            // One that stays already has the owner that it has.
            let is_to_stay = tap.is_persistent && !sys::is_tap_persistent(&device)?;
            let keep = is_to_stay.then(|| device.try_clone()).transpose()?;
            let is_shared = settle(&name, tap)?;
            let link = Self::new(device, is_shared, None)?;
            if let Some(device) = keep {
                // Last of all: one that we made and that failed is to leave nothing behind.
                let owner = tap.owner.map_or_else(|| geteuid().as_raw(), |owner| owner.uid);
                sys::keep_tap(device, owner).context("make it persistent")?;
            }
            let note = tap.netns.as_ref().map(|netns| format!("in namespace {netns}"));
            Ok((link, Peer::Interface { name, note }))
        })
    }
}

fn open_device() -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            anyhow!("open {DEVICE}: {error}; run as root, or let everybody open it: chmod 0666 {DEVICE}")
        }
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            anyhow!("open {DEVICE}: {error}; as root: modprobe tun (a container has to be given the device)")
        }
        _ => anyhow!("open {DEVICE}: {error}"),
    })
}

fn explain(error: io::Error, name: &str) -> anyhow::Error {
    let is_there = if_nametoindex(name).is_ok();
    match error.raw_os_error() {
        Some(libc::EPERM) if is_there => anyhow!(
            "{name} belongs to another user; run as root, or as root: ip tuntap del {name} mode tap; ip tuntap add {name} mode tap user $USER"
        ),
        Some(libc::EPERM) => anyhow!(
            "only root may make a TAP; run as root, or have one made for you, as root: ip tuntap add tap0 mode tap user $USER"
        ),
        Some(libc::EBUSY) => {
            anyhow!("{name} is open in another program; stop it, or choose another name")
        }
        Some(libc::EINVAL) if is_there => anyhow!(
            "{name} is an interface of another kind, or a TAP with several queues; choose another name"
        ),
        _ => anyhow!(error).context(format!("make or open the TAP {name}")),
    }
}

/// Gives the interface `name` what `tap` asks for, as far as it has not got it. Says whether it is a port
/// of something.
fn settle(name: &str, tap: &Tap) -> Result<bool> {
    let mut netlink = Netlink::open().context("ask the system about its interfaces")?;
    let told = Told { ip: tap.netns.as_ref().map_or("ip".to_owned(), |netns| format!("ip -n {netns}")) };
    let link = find(&mut netlink, name)?.context("it is gone again")?;
    let bridge = tap.bridge.as_ref().map(|bridge| find_bridge(&mut netlink, bridge)).transpose()?;
    // A bridge takes the lowest MTU of its ports.
    let mtu = tap.mtu.or(bridge.as_ref().map(|bridge| bridge.mtu));
    if let Some(mtu) = mtu.filter(|&mtu| mtu != link.mtu) {
        told.of(netlink.set_mtu(link.index, mtu), || format!("link set {name} mtu {mtu}"))?;
    }
    if let Some(bridge) = bridge.as_ref().filter(|bridge| link.master != Some(bridge.index)) {
        enslave(&mut netlink, &link, bridge, &told)?;
    }
    for cidr in &tap.addresses {
        match netlink.add_address(&Address::new(link.index, cidr.ip(), cidr.length())) {
            Err(error) if errno(&error) == Some(libc::EEXIST) => {}
            added => told.of(added, || format!("addr add {cidr} dev {name}"))?,
        }
    }
    if tap.is_up && !link.is_up {
        told.of(netlink.set_up(link.index), || format!("link set {name} up"))?;
    }
    Ok(bridge.is_some() || link.master.is_some())
}

fn enslave(netlink: &mut Netlink, link: &LinkRow, bridge: &LinkRow, told: &Told) -> Result<()> {
    let name = &link.name;
    // A bridge without an address of its own takes the lowest of its ports: that is to stay as it is.
    if let Some(Mac([_, b, c, d, e, f])) = link.mac {
        let mac = Mac([0xfe, b, c, d, e, f]);
        told.of(netlink.set_mac(link.index, mac), || format!("link set {name} address {mac}"))?;
    }
    let enslaved = netlink.set_master(link.index, Some(bridge.index));
    told.of(enslaved, || format!("link set {name} master {}", bridge.name))
}

/// The bridge of that name.
///
/// # Errors
///
/// When there is none; says what to do.
pub(super) fn find_bridge(netlink: &mut Netlink, bridge: &InterfaceName) -> Result<LinkRow> {
    let Some(found) = find(netlink, bridge.as_ref())? else {
        bail!(
            "there is no bridge {bridge}; make it with 'qhub bridge up {bridge}' or 'ip link add {bridge} type bridge'"
        );
    };
    if found.kind.as_deref() != Some("bridge") {
        bail!("{bridge} is no bridge; 'ip link show type bridge' lists those that there are");
    }
    Ok(found)
}

fn find(netlink: &mut Netlink, name: &str) -> Result<Option<LinkRow>> {
    netlink.link(name).with_context(|| format!("look for the interface {name}"))
}

/// How people would do what is done here.
struct Told {
    ip: String,
}

impl Told {
    /// What came of doing what `command` of iproute2 does.
    fn of(&self, result: io::Result<()>, command: impl Fn() -> String) -> Result<()> {
        result.map_err(|error| match errno(&error) {
            Some(libc::EPERM) => anyhow!(
                "only root may change interfaces; run as root, or as root before: {} {}",
                self.ip,
                command()
            ),
            _ => anyhow!("{} {}: {error}", self.ip, command()),
        })
    }
}
