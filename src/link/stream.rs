//! Stream links: QEMU's `u32 length | frame` over TCP and unix sockets (QEMU `net/stream.c`).

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use hub_protocol::stream::{self, Cut};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use socket2::{SockRef, TcpKeepalive};

use super::{Link, Peer, Received, SendError};
use crate::batch::{FrameBatch, Run, Taken};

/// What a socket may hold toward its peer: enough for full speed, little enough for a low latency.
const SEND_BUFFER: usize = 212_992;

/// How long a peer whose socket blocks may be left unread: it stands still all the while.
const BLOCKED: Duration = Duration::from_millis(5);

/// How long a silent TCP peer is trusted to be there; then it is asked, so often, this far apart.
const KEEPALIVE: Duration = Duration::from_secs(60);
const PROBES: u32 = 6;
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// A connected stream socket.
#[derive(Debug)]
pub enum StreamSocket {
    /// A unix socket.
    Unix(UnixStream),
    /// TCP over IPv4 or IPv6.
    Tcp(TcpStream),
}

impl StreamSocket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Unix(socket) => socket,
            Self::Tcp(socket) => socket,
        }
    }

    fn options(&self) -> SockRef<'_> {
        match self {
            Self::Unix(socket) => SockRef::from(socket),
            Self::Tcp(socket) => SockRef::from(socket),
        }
    }

    /// The pending error of the socket, as a finished `connect` leaves it.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.options().take_error()
    }

    /// Has the connection been made, or failed?
    pub fn is_connected(&self) -> bool {
        match self {
            Self::Unix(socket) => socket.peer_addr().is_ok(),
            Self::Tcp(socket) => socket.peer_addr().is_ok(),
        }
    }

    /// Is the other end this very socket? TCP can connect to the port that it dials from.
    pub fn is_connected_to_itself(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Tcp(socket) => {
                matches!((socket.local_addr(), socket.peer_addr()), (Ok(a), Ok(b)) if a == b)
            }
        }
    }

    /// Does the connection stay on this host?
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(socket) => {
                matches!((socket.local_addr(), socket.peer_addr()), (Ok(a), Ok(b)) if a.ip() == b.ip())
            }
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        match self {
            Self::Unix(socket) => Self::peer_of(socket),
            Self::Tcp(socket) => socket.peer_addr().map_or(Peer::Unknown, Peer::Address),
        }
    }

    /// Which process is at the other end of a unix socket.
    pub fn peer_of(socket: &UnixStream) -> Peer {
        getsockopt(socket, PeerCredentials)
            .map_or(Peer::Unknown, |peer| Peer::Process { uid: peer.uid(), pid: peer.pid() })
    }

    /// Registers a socket that is being connected.
    pub fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        registry.register(self.source(), token, interest)
    }

    /// Ends what [`Self::register`] began.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(self.source())
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(room),
            Self::Tcp(socket) => socket.read(room),
        }
    }

    /// Writes what fits: 0 octets when nothing does.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match self {
                Self::Unix(socket) => socket.write(bytes),
                Self::Tcp(socket) => socket.write(bytes),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                other => return other,
            }
        }
    }
}

/// A peer on a stream socket.
#[derive(Debug)]
pub struct StreamLink {
    socket: StreamSocket,
    /// The beginning of a record that has not arrived whole.
    tail: Vec<u8>,
    /// The rest of a record that the socket took only the beginning of.
    cut: Vec<u8>,
    fault: Option<stream::BadLength>,
    peer_blocks: bool,
}

impl StreamLink {
    /// A link to a peer that dialled us. The options of `socket` are set for it.
    ///
    /// # Errors
    ///
    /// When the system refuses an option.
    pub fn accepted(socket: StreamSocket) -> io::Result<Self> {
        Self::new(socket, false)
    }

    /// A link to a QEMU that we dialled: it leaves such a socket blocking (QEMU `net/stream.c`,
    /// `net/socket.c`, their `accept` handlers).
    ///
    /// # Errors
    ///
    /// When the system refuses an option.
    pub fn dialled(socket: StreamSocket) -> io::Result<Self> {
        Self::new(socket, true)
    }

    fn new(socket: StreamSocket, peer_blocks: bool) -> io::Result<Self> {
        let options = socket.options();
        options.set_send_buffer_size(SEND_BUFFER)?;
        if matches!(socket, StreamSocket::Tcp(_)) {
            options.set_tcp_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
            options.set_tcp_keepalive(&keepalive.with_interval(PROBE_INTERVAL).with_retries(PROBES))?;
        }
        Ok(Self { socket, tail: Vec::new(), cut: Vec::new(), fault: None, peer_blocks })
    }
}

impl Link for StreamLink {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        registry.register(self.socket.source(), token, interest)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        registry.reregister(self.socket.source(), token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(self.socket.source())
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        if let Some(fault) = self.fault {
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
        }
        let filled = match batch.fill_stream(&mut self.tail, |room| self.socket.read(room)) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Received::More),
            Err(error) => return Err(error),
        };
        if filled.taken == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.fault = filled.fault;
        if self.fault.is_none() && filled.taken < filled.offered {
            Ok(Received::Drained)
        } else {
            Ok(Received::More)
        }
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.flush()?;
        if self.is_cut() {
            return Ok(Taken::default());
        }
        let written = self.socket.write(run.records)?;
        if written == run.records.len() {
            return Ok(Taken { octets: written, frames: run.frames });
        }
        let Cut { whole, frames, end } = stream::cut(run.records, written);
        self.cut.extend_from_slice(&run.records[written..end]);
        Ok(Taken { octets: end, frames: frames + usize::from(end > whole) })
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_cut() {
            let written = self.socket.write(&self.cut)?;
            self.cut.drain(..written);
            if self.cut.is_empty() {
                self.cut = Vec::new();
            }
        }
        Ok(())
    }

    fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    fn max_frame(&self) -> usize {
        stream::MAX_FRAME
    }

    fn patience(&self) -> Option<Duration> {
        self.peer_blocks.then_some(BLOCKED)
    }

    fn stop_receiving(&mut self) -> bool {
        match &self.socket {
            // What was sent before can still be read. An error means that the peer is gone, which
            // the next receive will say.
            StreamSocket::Unix(socket) => socket.shutdown(Shutdown::Read).is_ok(),
            StreamSocket::Tcp(_) => false,
        }
    }

    fn is_at_boundary(&self) -> bool {
        self.tail.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream as StdStream;

    fn pair() -> (StreamLink, StdStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = StdStream::from(std::os::fd::OwnedFd::from(theirs));
        (StreamLink::accepted(StreamSocket::Unix(ours)).unwrap(), theirs)
    }

    fn records(count: usize, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for n in 0..count {
            assert!(stream::append(&mut bytes, &vec![n.to_le_bytes()[0]; length]));
        }
        bytes
    }

    #[test]
    fn a_cut_record_is_finished_and_nothing_comes_between() {
        let (mut link, mut theirs) = pair();
        theirs.set_nonblocking(false).unwrap();
        let bytes = records(400, 1514);
        let (sent, mut rest) = Run::of(&bytes).split(link.send(Run::of(&bytes)).unwrap());
        assert_eq!(sent, Run::of(sent.records));
        assert!(rest.frames > 0 && rest == Run::of(rest.records));
        assert_eq!(link.send(rest).unwrap(), Taken::default(), "the cut record comes first");
        let mut got = vec![0; bytes.len()];
        let mut read = 0;
        while read < bytes.len() {
            read += theirs.read(&mut got[read..]).unwrap();
            rest = rest.split(link.send(rest).unwrap()).1;
        }
        assert_eq!(rest.frames, 0);
        assert!(got == bytes);
        assert_eq!(link.cut.capacity(), 0);
    }

    #[test]
    fn only_a_peer_that_we_dialled_blocks() {
        let [one, other] = <[UnixStream; 2]>::from(UnixStream::pair().unwrap()).map(StreamSocket::Unix);
        assert_eq!(StreamLink::accepted(one).unwrap().patience(), None);
        assert_eq!(StreamLink::dialled(other).unwrap().patience(), Some(BLOCKED));
    }

    #[test]
    fn frames_before_a_bad_length_are_received() {
        let (mut link, mut theirs) = pair();
        let mut bytes = records(1, 20);
        bytes.extend_from_slice(&[0xff; 10]);
        theirs.write_all(&bytes).unwrap();
        let mut batch = FrameBatch::default();
        assert_eq!(link.receive(&mut batch).unwrap(), Received::More);
        assert_eq!(batch.records().len(), 24);
        let error = link.receive(&mut batch).unwrap_err();
        assert_eq!(error.to_string(), "frame length 4294967295 exceeds 69632");
    }

    #[test]
    fn the_end_comes_after_the_last_frame() {
        let (mut link, mut theirs) = pair();
        theirs.write_all(&records(2, 60)).unwrap();
        drop(theirs);
        let mut batch = FrameBatch::default();
        assert_eq!(link.receive(&mut batch).unwrap(), Received::Drained);
        assert_eq!(batch.records().len(), 128);
        assert_eq!(link.receive(&mut batch).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
