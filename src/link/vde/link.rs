//! One end of a VDE cable: a datagram socket that is connected to the other end's, and the stream socket
//! that tells when that is gone.

use std::io::{self, Read};
use std::time::Duration;

use hub_protocol::stream;
use mio::event::Source;
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;

use super::folder::OwnFolder;
use crate::batch::{FrameBatch, Run, Taken};
use crate::link::datagram::DatagramSocket;
use crate::link::socket_file::SocketFile;
use crate::link::{Link, Received, SendError};

/// What may be on its way to the other end; the system doubles it. More gives a little more speed, but is memory of
/// the system for each client that does not read, and makes what comes last old.
const SEND_BUFFER: usize = 512 << 10;

/// How long a client may be left unread: its socket blocks, and a QEMU stands still all the while.
const BLOCKED: Duration = Duration::from_millis(5);

/// What is read at once of a connection that says nothing of meaning any more.
const NOISE: usize = 1024;

/// One end of a VDE cable.
#[derive(Debug)]
pub struct VdeLink {
    control: UnixStream,
    data: DatagramSocket,
    end: End,
}

/// Which end it is.
#[derive(Debug)]
enum End {
    /// The switch's. What goes with the client: its files, and then perhaps the folder.
    Switch { _files: [Option<SocketFile>; 2], _folder: Option<OwnFolder> },
    /// The client's.
    Client,
}

impl VdeLink {
    /// The switch's end, at the file `ours`.
    pub(super) fn plugged(
        control: UnixStream,
        data: Socket,
        ours: SocketFile,
        theirs: Option<SocketFile>,
        folder: Option<OwnFolder>,
    ) -> io::Result<Self> {
        Self::new(control, data, End::Switch { _files: [Some(ours), theirs], _folder: folder })
    }

    /// The client's end.
    pub(super) fn joined(control: UnixStream, data: Socket) -> io::Result<Self> {
        Self::new(control, data, End::Client)
    }

    fn new(control: UnixStream, data: Socket, end: End) -> io::Result<Self> {
        data.set_send_buffer_size(SEND_BUFFER)?;
        Ok(Self { control, data: DatagramSocket::unix(data)?, end })
    }

    /// What comes behind the handshake means nothing, but for its end.
    fn hear_control(&mut self) -> io::Result<Received> {
        match self.control.read(&mut [0; NOISE]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(Received::More),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Received::More),
            // It left without reading our answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Err(error) => Err(error),
        }
    }
}

impl Link for VdeLink {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.data.fd()).register(registry, token, interest)?;
        self.control.register(registry, token, Interest::READABLE)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.data.fd()).reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        let control = self.control.deregister(registry);
        SourceFd(&self.data.fd()).deregister(registry).and(control)
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        // Some clients say farewell by an empty datagram.
        match self.data.receive_many(batch, <[u8]>::is_empty)? {
            Received::Nothing => self.hear_control(),
            received @ (Received::More | Received::Drained) => Ok(received),
        }
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.data.send_to_pair(run)
    }

    fn max_frame(&self) -> usize {
        stream::MAX_FRAME
    }

    fn patience(&self) -> Option<Duration> {
        Some(match self.end {
            End::Switch { .. } => BLOCKED,
            // A switch drops what is not read.
            End::Client => Duration::ZERO,
        })
    }

    fn may_be_cut(&self) -> bool {
        false
    }

    fn is_bus(&self) -> bool {
        matches!(self.end, End::Client)
    }
}
