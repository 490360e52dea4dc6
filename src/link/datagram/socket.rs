//! A datagram socket: what stands in front of a frame, and what comes with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;

use hub_protocol::l2tpv3::{BadHeader, HEADER_MAX, L2tpv3};
use hub_protocol::stream;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{SockAddr, SockRef, Socket};

use super::many::Many;
use super::source::Sender;
use crate::batch::{FrameBatch, MANY, Run, Taken};
use crate::discard::DiscardReason;
use crate::link::interface::socket_addr;
use crate::link::{Received, SendError};

/// Datagrams that one receive takes at the most.
const BURST: usize = 256;

/// Errors that one receive puts up with.
const ERRORS: usize = 16;

/// What a UDP socket may hold to be received, as far as the system allows: nobody waits for it.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The longest UDP payload.
const UDP_MAX: usize = 65_507;

/// What vfkit and libkrun say to a new peer; no frame.
pub(super) const HELLO: &[u8] = b"VFKT";

/// What stands in front of each frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Framing {
    /// Nothing.
    Bare,
    /// An L2TPv3 header.
    L2tpv3(L2tpv3),
}

impl Framing {
    fn header_len(self) -> usize {
        match self {
            Self::Bare => 0,
            Self::L2tpv3(framing) => framing.header_len(),
        }
    }

    fn check(self, header: &[u8]) -> Result<(), DiscardReason> {
        let Self::L2tpv3(framing) = self else { return Ok(()) };
        framing.check_header(header).map_err(|fault| match fault {
            BadHeader::Malformed => DiscardReason::BadHeader,
            BadHeader::WrongSession => DiscardReason::WrongSession,
            BadHeader::WrongCookie => DiscardReason::WrongCookie,
        })
    }
}

/// What is to become of a datagram, by its sender.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reception {
    /// Its frame is taken.
    Taken,
    /// It is nobody's loss.
    Ignored,
    /// Its frame is lost.
    Lost(DiscardReason),
}

/// A datagram socket that does not block.
#[derive(Debug)]
pub(in crate::link) enum DatagramSocket {
    /// What is not read stops its sender.
    Unix(UnixSocket),
    /// What is not read in time is dropped by the system.
    Udp(UdpSocket),
}

#[derive(Debug)]
pub(in crate::link) struct UnixSocket {
    socket: UnixDatagram,
    many: Many,
}

#[derive(Debug)]
pub(in crate::link) struct UdpSocket {
    socket: Socket,
    framing: Framing,
    /// Room for what the system tells beside a datagram.
    control: Vec<u8>,
    /// Datagrams that the system has dropped, as it told last.
    overrun: u32,
    /// Datagrams sent, as L2TPv3 counts them.
    counter: u32,
    many: Many,
}

/// A datagram, whose frame is in the room that was offered.
struct Datagram {
    sender: Sender,
    content: Content,
    /// Datagrams that the system dropped since it last told.
    overrun: u64,
}

enum Content {
    /// A frame of so many octets.
    Frame(usize),
    /// A greeting.
    Hello,
    /// No frame, for a reason.
    Lost(DiscardReason),
}

impl DatagramSocket {
    /// A unix socket.
    pub(in crate::link) fn unix(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::Unix(UnixSocket { socket: socket.into(), many: Many::new() }))
    }

    /// A UDP socket.
    pub(super) fn udp(socket: Socket, framing: Framing) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        let control = nix::cmsg_space!(u32);
        Ok(Self::Udp(UdpSocket { socket, framing, control, overrun: 0, counter: 0, many: Many::new() }))
    }

    /// The longest frame that it carries.
    pub(super) fn max_frame(&self) -> usize {
        match self {
            Self::Unix(_) => stream::MAX_FRAME,
            Self::Udp(udp) => UDP_MAX - udp.framing.header_len(),
        }
    }

    pub(in crate::link) fn fd(&self) -> RawFd {
        match self {
            Self::Unix(unix) => unix.socket.as_raw_fd(),
            Self::Udp(udp) => udp.socket.as_raw_fd(),
        }
    }

    pub(super) fn connect(&self, address: &SockAddr) -> io::Result<()> {
        match self {
            Self::Unix(unix) => SockRef::from(&unix.socket).connect(address),
            Self::Udp(udp) => udp.socket.connect(address),
        }
    }

    /// Receives into `batch`. Of each datagram, `receive` is told the sender, and the octets of
    /// records before it.
    pub(super) fn receive(
        &mut self,
        batch: &mut FrameBatch,
        mut receive: impl FnMut(&Sender, usize) -> Reception,
    ) -> io::Result<Received> {
        let (mut received, mut errors) = (Received::Nothing, 0);
        for _ in 0..BURST {
            let at = batch.records().len();
            let Some(room) = batch.room() else { return Ok(Received::More) };
            let datagram = match self {
                Self::Unix(unix) => receive_unix(&unix.socket, room),
                Self::Udp(udp) => udp.receive(room),
            };
            match datagram {
                Ok(Datagram { sender, content, overrun }) => {
                    received = Received::Drained;
                    batch.lose(DiscardReason::Overrun, overrun);
                    match (receive(&sender, at), content) {
                        (Reception::Taken, Content::Frame(octets)) => batch.push(octets),
                        (Reception::Taken, Content::Lost(reason)) | (Reception::Lost(reason), _) => {
                            batch.lose(reason, 1);
                        }
                        (Reception::Taken, Content::Hello) | (Reception::Ignored, _) => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(received),
                // That is what became of an earlier datagram of ours.
                Err(_) if matches!(self, Self::Udp(_)) && errors < ERRORS => errors += 1,
                Err(_) if matches!(self, Self::Udp(_)) => return Ok(received),
                Err(error) => return Err(error),
            }
        }
        Ok(Received::More)
    }

    /// Receives into an empty `batch`, several datagrams at once, from a unix socket that hears nobody
    /// but its peer. What `is_noise` is no frame, and nobody's loss.
    pub(in crate::link) fn receive_many(
        &mut self,
        batch: &mut FrameBatch,
        is_noise: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Received> {
        let Self::Unix(UnixSocket { socket, many }) = self else {
            return self.receive(batch, |_, _| Reception::Taken);
        };
        let mut received = Received::Nothing;
        for _ in 0..BURST / MANY {
            if !batch.is_half_empty() {
                break;
            }
            received = match many.receive(socket.as_raw_fd(), batch, &is_noise) {
                Ok(Received::More) => Received::More,
                Ok(last) => return Ok(last),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && received == Received::More => {
                    return Ok(Received::Drained);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(received),
                Err(error) => return Err(error),
            };
        }
        Ok(received)
    }

    /// Sends from the start of `run`, each frame in a datagram, until the system has no room.
    ///
    /// # Errors
    ///
    /// When the first frame can't be sent.
    pub(super) fn send(&mut self, run: Run<'_>) -> io::Result<Taken> {
        let mut taken = Taken::default();
        while taken.frames < run.frames {
            let rest = run.split(taken).1;
            let sent = match self {
                Self::Unix(unix) => unix.many.send(unix.socket.as_raw_fd(), rest),
                Self::Udp(udp) => match udp.send(rest) {
                    // It may tell of an earlier datagram; then this one was not tried.
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => udp.send(rest),
                    sent => sent,
                },
            };
            match sent {
                Ok(more) => {
                    taken = Taken { octets: taken.octets + more.octets, frames: taken.frames + more.frames }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || taken.frames > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// The same to a peer that is connected to this socket as this is to it: when it is gone, so is the
    /// link.
    ///
    /// # Errors
    ///
    /// As for [`Self::send`].
    pub(in crate::link) fn send_to_pair(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.send(run).map_err(|error| {
            if is_departure(&error) { SendError::Broken(error) } else { SendError::Refused(error) }
        })
    }
}

/// Does `error` say that a unix peer is gone?
pub(super) fn is_departure(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ENOTCONN | libc::EPIPE | libc::EPERM)
    )
}

fn receive_unix(socket: &UnixDatagram, room: &mut [u8]) -> io::Result<Datagram> {
    let (octets, sender) = socket.recv_from(room)?;
    let content = if octets > stream::MAX_FRAME {
        Content::Lost(DiscardReason::TooBig)
    } else if room[..octets] == *HELLO {
        Content::Hello
    } else {
        Content::Frame(octets)
    };
    Ok(Datagram { sender: Sender::Unix(sender), content, overrun: 0 })
}

impl UdpSocket {
    fn receive(&mut self, room: &mut [u8]) -> io::Result<Datagram> {
        let mut header = [0; HEADER_MAX];
        let header = &mut header[..self.framing.header_len()];
        let mut parts = [IoSliceMut::new(header), IoSliceMut::new(room)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut self.control), MsgFlags::empty())?;
        let (octets, is_cut) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
        let sender = message.address.as_ref().and_then(socket_addr).ok_or(io::ErrorKind::InvalidData)?;
        let mut overrun = 0;
        // Whoever made an inherited socket may have asked for more than there is room for.
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::RxqOvfl(total) = control {
                overrun = u64::from(total.wrapping_sub(self.overrun));
                self.overrun = total;
            }
        }
        let content = match self.framing.check(&header[..octets.min(header.len())]) {
            Err(reason) => Content::Lost(reason),
            Ok(()) if is_cut => Content::Lost(DiscardReason::TooBig),
            Ok(()) => Content::Frame(octets - header.len()),
        };
        Ok(Datagram { sender: Sender::Udp(sender), content, overrun })
    }

    /// Sends from the start of `run`, as much as one call takes.
    fn send(&mut self, run: Run<'_>) -> io::Result<Taken> {
        let Framing::L2tpv3(framing) = self.framing else {
            return self.many.send(self.socket.as_raw_fd(), run);
        };
        let Some(frame) = stream::frames(run.records).next() else { return Ok(Taken::default()) };
        let mut header = [0; HEADER_MAX];
        framing.write(self.counter, &mut header);
        let header = &header[..framing.header_len()];
        self.socket.send_vectored(&[IoSlice::new(header), IoSlice::new(frame)])?;
        self.counter = self.counter.wrapping_add(1);
        Ok(run.first())
    }
}
