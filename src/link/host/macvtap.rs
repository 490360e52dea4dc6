//! Macvtaps: a second card on the cable of an interface, whose addresses stay where they are.
//!
//! One that we make lives in a network namespace without a name, which goes with the last file that is
//! open in it: so it is gone with the hub, however that ends, and no other program takes it for a card
//! of the host.

use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use hub_protocol::mac::Mac;
use nix::libc;

use super::{TapLink, no_ethernet};
use crate::config::{InterfaceName, Macvtap, MacvtapMode, MacvtapPlace};
use crate::host::namespace;
use crate::host::netlink::{Layer, Netlink, NewMacvtap, Watch, errno};
use crate::host::sysctl::Setting;
use crate::link::{Peer, sys};

impl TapLink {
    /// Opens `macvtap`, which is made if need be.
    ///
    /// # Errors
    ///
    /// Whatever the system refuses; says what to do.
    pub fn macvtap(macvtap: &Macvtap) -> Result<(Self, Peer)> {
        let offload = macvtap.offload;
        match &macvtap.place {
            MacvtapPlace::Device(path) => {
                let (link, name) = open(path, offload).map_err(|error| explain(error, path))?;
                // Without the right to it, whoever made it has to see to that.
                let _ = Netlink::open().and_then(|mut netlink| bring_up(&mut netlink, &name));
                Ok((link, Peer::Interface { name, note: None }))
            }
            MacvtapPlace::Lower(lower, mode) => {
                let (link, mac) = make(lower, *mode, macvtap.mac, offload)?;
                let note = Some(format!("macvtap with mac={mac}"));
                Ok((link, Peer::Interface { name: lower.to_string(), note }))
            }
        }
    }
}

fn open(path: &Path, offload: bool) -> io::Result<(TapLink, String)> {
    let device = OpenOptions::new().read(true).write(true).open(path)?;
    // Before anything is changed: it may be something else.
    let (name, _) = sys::tap_interface(&device)?;
    sys::attach_tap(&device, "", offload)?;
    let link = TapLink::new(device, true, Some(Watch::open(&name)?)).map_err(io::Error::other)?;
    Ok((link, name))
}

/// Lets the macvtap `name` hear all groups, which only the guests know, and brings it up.
fn bring_up(netlink: &mut Netlink, name: &str) -> io::Result<()> {
    let index = netlink.link(name)?.ok_or(io::ErrorKind::NotFound)?.index;
    netlink.set_all_groups(index)?;
    netlink.set_up(index)
}

fn explain(error: io::Error, path: &Path) -> anyhow::Error {
    let shown = path.display();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            anyhow!("open {shown}: {error}; run as root, or as root: chown $USER {shown}")
        }
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => anyhow!(
            "open {shown}: {error}; N is the number that 'ip link show type macvtap' has in front of the macvtap"
        ),
        Some(libc::EBADFD | libc::ENOTTY | libc::EINVAL) => anyhow!("{shown} is no macvtap"),
        _ => anyhow!("open {shown}: {error}"),
    }
}

/// Makes a macvtap on `lower` that lives as long as it is open.
fn make(lower: &InterfaceName, mode: MacvtapMode, mac: Option<Mac>, offload: bool) -> Result<(TapLink, Mac)> {
    let mut home = Netlink::open().context("ask the system about its interfaces")?;
    let found = home.link(lower.as_ref())?;
    let found = found.with_context(|| format!("there is no interface {lower}; see 'ip link'"))?;
    if found.layer != Layer::Ethernet {
        return Err(no_ethernet(lower));
    }
    // Its file in /dev is called by its number, in whatever namespace it is.
    let number = u32::try_from(RandomState::new().hash_one(0) & 0x3fff_ffff)? | 0x4000_0000;
    let name = format!("qhub-{number:x}");
    namespace::within_new(|netns| {
        let new = NewMacvtap { name: &name, index: number, lower: found.index, mode, mac, netns };
        home.add_macvtap(&new).map_err(|error| match errno(&error) {
            Some(libc::EBUSY | libc::EINVAL) => anyhow!(
                "make a macvtap on {lower}: {error}; it is a port of a bridge, or another macvtap or bond has it for itself"
            ),
            _ => anyhow!("make a macvtap on {lower}: {error}"),
        })?;
        let mut here = Netlink::open()?;
        // This namespace is to say nothing of its own by it.
        Setting::new(format!("ipv6/conf/{name}/disable_ipv6"), "1").write()?;
        bring_up(&mut here, &name).context("bring the macvtap up")?;
        let made = here.link(&name)?.context("the macvtap is gone again")?;
        let device = format!("/dev/tap{number}");
        let (link, opened) = open(Path::new(&device), offload).with_context(|| {
            format!("open {device}, which the system makes where /dev is a devtmpfs (a container has none)")
        })?;
        if opened != name {
            bail!("{device} belongs to {opened}, which is not what was made; try again");
        }
        Ok((link, made.mac.context("the macvtap has no address")?))
    })
}
