//! TAPs and macvtaps: a file that takes and gives one frame with each system call
//! (Linux `Documentation/networking/tuntap.rst`), or a bundle of them where it has an offload header.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hub_protocol::stream;
use hub_protocol::vnet::{VNET_LEN, VnetHeader};
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::uio::readv;

use super::receive::receive;
use super::transmit::{HEADER_MAX, Transmit, deleted, running};
use crate::batch::{Bundle, FrameBatch, Run, Taken};
use crate::discard::DiscardReason;
use crate::host::netlink::{Netlink, Watch};
use crate::link::{Link, Peer, Received, SendError, sys};

/// What we do ourselves with what a TAP gives: checksums, and segments of TCP.
const FEATURES: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// A TAP or macvtap.
#[derive(Debug)]
pub struct TapLink {
    file: File,
    transmit: Transmit,
    /// A macvtap tells nothing of its own state.
    watch: Option<Watch>,
    /// Is it a port of a bridge, or on the cable of another interface?
    is_shared: bool,
}

impl TapLink {
    /// A link to the interface that `file` is attached to.
    ///
    /// # Errors
    ///
    /// When it is no TAP, or the system refuses an option.
    pub(super) fn new(file: File, is_shared: bool, watch: Option<Watch>) -> Result<Self> {
        let (_, flags) = sys::tap_interface(&file).context("it is no TAP")?;
        if flags & libc::IFF_TAP == 0 {
            bail!("it is a TUN, which carries no Ethernet; make it with 'ip tuntap add ... mode tap'");
        }
        if flags & libc::IFF_DETACH_QUEUE != 0 {
            bail!("it is a queue of a TAP that is detached; attach it (TUNSETQUEUE)");
        }
        let has_header = flags & libc::IFF_VNET_HDR != 0;
        let header_len = if has_header { sys::tap_header_len(&file)? } else { 0 };
        if has_header && !(VNET_LEN..=HEADER_MAX).contains(&header_len) {
            bail!("its offload header has {header_len} octets; qhub knows {VNET_LEN} to {HEADER_MAX}");
        }
        // Whoever had it before may have said something else.
        sys::set_tap_offload(&file, if has_header { FEATURES } else { 0 })
            .context("set what it leaves to do")?;
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self {
            file,
            transmit: Transmit { header_len, longest_part: stream::MAX_FRAME },
            watch,
            is_shared,
        })
    }

    /// A link to a TAP that the parent process left open, if that is what `fd` is. Who knows what it is
    /// a port of.
    ///
    /// # Errors
    ///
    /// When it is one that can't be used.
    pub fn inherited(fd: &OwnedFd) -> Result<Option<(Self, Peer)>> {
        if sys::tap_interface(fd).is_err() {
            return Ok(None);
        }
        Self::passed(File::from(fd.try_clone()?)).map(Some)
    }

    /// A link to a TAP that somebody else has opened.
    ///
    /// # Errors
    ///
    /// When it is one that can't be used.
    pub(super) fn passed(file: File) -> Result<(Self, Peer)> {
        let (name, _) = sys::tap_interface(&file).context("it is no TAP")?;
        // It may be in another namespace.
        if Netlink::open()?.link(&name)?.is_some_and(|row| row.has_packet_information) {
            bail!("it has packet information in front of each frame; open it with IFF_NO_PI");
        }
        Ok((Self::new(file, true, None)?, Peer::Interface { name, note: None }))
    }

    /// How to send to it, if it takes anything.
    fn transmit(&self) -> Result<Transmit, SendError> {
        if let Some(watch) = &self.watch {
            running(watch)?;
        }
        Ok(self.transmit)
    }

    /// Files to be polled beside its own.
    fn others(&self) -> Option<RawFd> {
        self.watch.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// Receives one frame into `batch`, or counts it as lost.
fn receive_one(file: &File, header_len: usize, batch: &mut FrameBatch) -> io::Result<()> {
    let mut header = [0; HEADER_MAX];
    let room = batch.room().ok_or(io::ErrorKind::OutOfMemory)?;
    let mut parts = [IoSliceMut::new(&mut header[..header_len]), IoSliceMut::new(room)];
    let octets = match readv(file, &mut parts).map_err(io::Error::from) {
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Err(deleted()),
        // What was left to be done, this header can't say.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            batch.lose(DiscardReason::BadOffload, 1);
            return Ok(());
        }
        read => read?.saturating_sub(header_len),
    };
    if octets > stream::MAX_FRAME {
        batch.lose(DiscardReason::TooBig, 1);
    } else {
        // Where there is no header, these zeros say that nothing is left to be done.
        let header = header.first_chunk().map(VnetHeader::parse).unwrap_or_default();
        batch.push_offloaded(octets, &header);
    }
    Ok(())
}

impl Link for TapLink {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        if let Some(other) = self.others() {
            SourceFd(&other).register(registry, token, Interest::READABLE)?;
        }
        SourceFd(&self.file.as_raw_fd()).register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.file.as_raw_fd()).reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        if let Some(other) = self.others() {
            SourceFd(&other).deregister(registry)?;
        }
        SourceFd(&self.file.as_raw_fd()).deregister(registry)
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        if let Some(watch) = &mut self.watch {
            watch.look().ok_or_else(deleted)?;
        }
        let header_len = self.transmit.header_len;
        receive(batch, |batch| receive_one(&self.file, header_len, batch))
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.transmit()?.send(&self.file, run)
    }

    fn send_bundle(&mut self, bundle: &Bundle<'_>) -> bool {
        self.transmit().is_ok_and(|transmit| transmit.send_bundle(&self.file, bundle))
    }

    fn max_frame(&self) -> usize {
        stream::MAX_FRAME
    }

    /// What is not read waits in the interface's own queue.
    fn patience(&self) -> Option<Duration> {
        None
    }

    fn has_end(&self) -> bool {
        false
    }

    fn is_bus(&self) -> bool {
        self.is_shared
    }
}
