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

/// What may be on its way to the other end, as far as the system allows.
const SEND_BUFFER: usize = 1 << 20;

/// How long a client may be left unread: its socket blocks, and a QEMU stands still all the while.
const BLOCKED: Duration = Duration::from_millis(5);

/// What is read at once of a connection that says nothing of meaning any more.
const NOISE: usize = 1024;

/// One end of a VDE cable.
#[derive(Debug)]
pub struct VdeLink {
    control: UnixStream,
    data: DatagramSocket,
    patience: Duration,
    is_bus: bool,
    /// Files that go with the client.
    _files: [Option<SocketFile>; 2],
    /// The last one out removes the folder.
    _folder: Option<OwnFolder>,
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
        let files = [Some(ours), theirs];
        Ok(Self {
            control,
            data: socket(data)?,
            patience: BLOCKED,
            is_bus: false,
            _files: files,
            _folder: folder,
        })
    }

    /// The client's end. A switch drops what is not read.
    pub(super) fn joined(control: UnixStream, data: Socket) -> io::Result<Self> {
        let data = socket(data)?;
        Ok(Self {
            control,
            data,
            patience: Duration::ZERO,
            is_bus: true,
            _files: [None, None],
            _folder: None,
        })
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

fn socket(data: Socket) -> io::Result<DatagramSocket> {
    data.set_send_buffer_size(SEND_BUFFER)?;
    DatagramSocket::unix(data)
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
        Some(self.patience)
    }

    fn is_bus(&self) -> bool {
        self.is_bus
    }
}
