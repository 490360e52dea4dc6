//! What becomes of one link, told as it happens: a packet socket or a macvtap may never hear of it otherwise.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;

use super::link::{LinkRow, question_by_index};
use super::message::Message;
use super::{Netlink, framed};

/// Messages that one look takes at the most: more than there is room for.
const BURST: usize = 4096;

/// A link that is watched.
pub struct Watch {
    socket: Socket,
    index: u32,
    /// As it was told last; `None` when it is gone.
    row: Option<LinkRow>,
    /// Was more told than there was room for?
    has_missed: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("row", &self.row).finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches the link `name` of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// The kernel's; `NotFound` when there is no such link.
    pub fn open(name: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let groups = u32::try_from(libc::RTMGRP_LINK).map_err(io::Error::other)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        socket.set_non_blocking(true)?;
        // Asked only now, so that no change is missed.
        let row = Netlink::open()?.link(name)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { socket, index: row.index, row: Some(row), has_missed: false })
    }

    /// Takes note of what has been told since, and says what the link is like; `None` when it is gone.
    pub fn look(&mut self) -> Option<&LinkRow> {
        for _ in 0..BURST {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => self.read(&datagram),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.has_missed = true,
                // There is room for the answer only now.
                Err(_) if self.has_missed => {
                    self.has_missed = false;
                    self.ask();
                }
                Err(_) => break,
            }
        }
        self.row.as_ref()
    }

    /// What the link was like at the last look; `None` when it was gone.
    pub fn row(&self) -> Option<&LinkRow> {
        self.row.as_ref()
    }

    fn read(&mut self, datagram: &[u8]) {
        let Ok(message) = NetlinkMessage::<Message>::deserialize(datagram) else { return };
        if let NetlinkPayload::InnerMessage(told) = &message.payload
            && told.is_about(self.index)
        {
            self.row = if told.kind == libc::RTM_DELLINK { None } else { LinkRow::read(told) };
        } else if let NetlinkPayload::Error(error) = &message.payload
            && -error.raw_code() == libc::ENODEV
        {
            self.row = None;
        }
    }

    fn ask(&mut self) {
        // The answer comes like everything else. Without it, the next change will tell.
        let _ = self.socket.send(&framed(&question_by_index(self.index), 0, 0), 0);
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
