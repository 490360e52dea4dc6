//! An interface of the host itself, by a packet socket (packet(7)): it keeps its addresses, and the
//! segment joins its cable.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hub_protocol::ethernet::{HEADER_LEN, TAG_LEN};
use hub_protocol::stream;
use hub_protocol::vnet::{VNET_LEN, VnetHeader};
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::no_ethernet;
use super::receive::receive;
use super::transmit::{Transmit, deleted, running};
use crate::batch::{Bundle, FrameBatch, Run, Taken};
use crate::config::InterfaceName;
use crate::discard::DiscardReason;
use crate::host::netlink::{Layer, LinkRow, Watch};
use crate::link::{Link, Peer, Received, SendError, sys};

/// What the socket may hold to be received, as far as the system allows: nobody waits for it.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Where a VLAN tag belongs: behind the two addresses.
const TAG_AT: usize = 12;

/// The type of a tag where the system says none.
const ETHERTYPE_VLAN: u16 = 0x8100;

/// An interface of the host.
#[derive(Debug)]
pub struct PacketLink {
    socket: Socket,
    watch: Watch,
    /// Room for what the system tells beside a frame.
    control: Vec<u8>,
    /// Frames that the system has dropped, as it told last.
    overrun: u32,
}

/// What the system tells beside a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Aside {
    /// The VLAN tag that was taken out.
    tag: Option<[u8; TAG_LEN]>,
    /// Frames dropped since it last told.
    overrun: u64,
}

impl PacketLink {
    /// Joins the cable of `name`.
    ///
    /// # Errors
    ///
    /// When there is no such interface, or only root may; says what to do.
    pub fn open(name: &InterfaceName) -> Result<(Self, Peer)> {
        let watch =
            Watch::open(name.as_ref()).map_err(|error| match error.kind() == io::ErrorKind::NotFound {
                true => anyhow!("there is no interface {name}; see 'ip addr'"),
                false => anyhow!("look for the interface {name}: {error}"),
            })?;
        let Some(LinkRow { index, layer: Layer::Ethernet, .. }) = watch.row() else {
            return Err(no_ethernet(name));
        };
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                anyhow!("only root may join the cable of an interface; run as root, or give qhub the capability CAP_NET_RAW")
            }
            _ => anyhow!(error).context("open a packet socket"),
        })?;
        socket.set_nonblocking(true)?;
        // Root may have more than others.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        for option in [libc::PACKET_VNET_HDR, libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
            sys::set_packet_option(&socket, option, 1).context("set an option that Linux 4.20 brought")?;
        }
        sys::bind_packet(&socket, *index).with_context(|| format!("listen to {name}"))?;
        sys::be_promiscuous(&socket, *index).context("hear what is for others")?;
        let control = nix::cmsg_space!(u32, libc::tpacket_auxdata);
        let link = Self { socket, watch, control, overrun: 0 };
        Ok((link, Peer::Interface { name: name.to_string(), note: None }))
    }

    /// How to send to the interface, if it takes anything.
    fn transmit(&self) -> Result<Transmit, SendError> {
        let row = running(&self.watch)?;
        // The system does not look at the parts of what is longer than the interface takes.
        let mtu = usize::try_from(row.mtu).unwrap_or(usize::MAX);
        Ok(Transmit { header_len: VNET_LEN, longest_part: mtu.saturating_add(HEADER_LEN) })
    }
}

/// Receives one frame into `batch`, or counts it as lost.
fn receive_one(
    socket: &Socket,
    control: &mut [u8],
    overrun: &mut u32,
    batch: &mut FrameBatch,
) -> io::Result<()> {
    let mut header = [0; VNET_LEN];
    let room = batch.room().ok_or(io::ErrorKind::OutOfMemory)?;
    let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(room)];
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(control), MsgFlags::empty()) {
        // What was left to be done, this header can't say.
        Err(nix::Error::EINVAL) => {
            batch.lose(DiscardReason::BadOffload, 1);
            return Ok(());
        }
        // The interface went down, and may come back.
        Err(nix::Error::ENETDOWN) => return Err(io::ErrorKind::Interrupted.into()),
        received => received?,
    };
    let octets = message.bytes.saturating_sub(VNET_LEN);
    let is_cut = message.flags.contains(MsgFlags::MSG_TRUNC);
    let aside = Aside::read(message.cmsgs()?, overrun);
    batch.lose(DiscardReason::Overrun, aside.overrun);
    if is_cut || octets + TAG_LEN > stream::MAX_FRAME {
        batch.lose(DiscardReason::TooBig, 1);
        return Ok(());
    }
    let mut header = VnetHeader::parse(&header);
    let Some((tag, room)) = aside.tag.zip(batch.room()).filter(|_| octets >= TAG_AT) else {
        batch.push_offloaded(octets, &header);
        return Ok(());
    };
    put_tag(room, octets, tag, &mut header);
    batch.push_offloaded(octets + TAG_LEN, &header);
    Ok(())
}

/// Puts a tag back into the frame of `octets` at the start of `room`.
fn put_tag(room: &mut [u8], octets: usize, tag: [u8; TAG_LEN], header: &mut VnetHeader) {
    room.copy_within(TAG_AT..octets, TAG_AT + TAG_LEN);
    room[TAG_AT..TAG_AT + TAG_LEN].copy_from_slice(&tag);
    // What the header speaks of stands behind the tag.
    let shift = u16::try_from(TAG_LEN).unwrap_or_default();
    header.csum_start = header.csum_start.saturating_add(shift);
}

impl Aside {
    fn read(told: impl Iterator<Item = ControlMessageOwned>, overrun: &mut u32) -> Self {
        let mut aside = Self::default();
        for control in told {
            if let ControlMessageOwned::RxqOvfl(total) = control {
                aside.overrun = u64::from(total.wrapping_sub(*overrun));
                *overrun = total;
            } else if let ControlMessageOwned::Unknown(unknown) = control
                && (unknown.cmsg_header.cmsg_level, unknown.cmsg_header.cmsg_type)
                    == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
            {
                aside.tag = tag(&unknown.data_bytes);
            }
        }
        aside
    }
}

/// The VLAN tag in a `tpacket_auxdata`: status, length, captured length, two offsets, then the tag.
fn tag(aside: &[u8]) -> Option<[u8; TAG_LEN]> {
    let status = u32::from_ne_bytes(*aside.first_chunk()?);
    let number = |at: usize| Some(u16::from_ne_bytes(*aside.get(at..)?.first_chunk()?));
    if status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let is_told = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let [a, b] = if is_told { number(18)? } else { ETHERTYPE_VLAN }.to_be_bytes();
    let [c, d] = number(16)?.to_be_bytes();
    Some([a, b, c, d])
}

impl Link for PacketLink {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.watch.as_raw_fd()).register(registry, token, Interest::READABLE)?;
        SourceFd(&self.socket.as_raw_fd()).register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.watch.as_raw_fd()).deregister(registry)?;
        SourceFd(&self.socket.as_raw_fd()).deregister(registry)
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        self.watch.look().ok_or_else(deleted)?;
        let Self { socket, control, overrun, .. } = self;
        receive(batch, |batch| receive_one(socket, control, overrun, batch))
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.transmit()?.send(&self.socket, run)
    }

    fn send_bundle(&mut self, bundle: &Bundle<'_>) -> bool {
        self.transmit().is_ok_and(|transmit| transmit.send_bundle(&self.socket, bundle))
    }

    fn max_frame(&self) -> usize {
        stream::MAX_FRAME
    }

    /// What is not read in time is dropped by the system.
    fn patience(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn has_end(&self) -> bool {
        false
    }

    fn is_bus(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the system writes it: four numbers of 16 bits behind three of 32.
    fn aside(status: u32, tci: u16, tpid: u16) -> Vec<u8> {
        let mut octets = [status, 60, 60].map(u32::to_ne_bytes).concat();
        octets.extend([0, 14, tci, tpid].map(u16::to_ne_bytes).concat());
        octets
    }

    #[test]
    fn a_tag_is_read_where_there_is_one() {
        let both = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
        assert_eq!(tag(&aside(0, 5, 0x88a8)), None);
        assert_eq!(tag(&aside(both, 0x2005, 0x88a8)), Some([0x88, 0xa8, 0x20, 0x05]));
        assert_eq!(tag(&aside(libc::TP_STATUS_VLAN_VALID, 5, 0)), Some([0x81, 0, 0, 5]));
        assert_eq!(tag(&aside(both, 5, 0x8100)[..19]), None);
        assert_eq!(tag(&[]), None);
    }

    #[test]
    fn a_tag_goes_behind_the_addresses() {
        let mut room: Vec<u8> = (0..40).collect();
        let mut header = VnetHeader { csum_start: 34, ..VnetHeader::default() };
        put_tag(&mut room, 14, [0x81, 0, 0, 5], &mut header);
        assert_eq!(room[..12], (0..12).collect::<Vec<u8>>());
        assert_eq!(room[12..18], [0x81, 0, 0, 5, 12, 13]);
        assert_eq!((room[18], header.csum_start), (18, 38));
        put_tag(&mut room, 12, [0x81, 0, 0, 6], &mut header);
        assert_eq!(room[12..16], [0x81, 0, 0, 6]);
    }

    #[test]
    fn the_count_of_what_was_dropped_may_wrap() {
        let mut overrun = u32::MAX - 1;
        let told = [ControlMessageOwned::RxqOvfl(3)];
        assert_eq!(Aside::read(told.into_iter(), &mut overrun), Aside { tag: None, overrun: 5 });
        assert_eq!(overrun, 3);
    }
}
