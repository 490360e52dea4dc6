//! A client of a VDE switch that has come, and not yet said what it wants.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use hub_protocol::vde::{REPLY_LEN, REQUEST_MAX, Request};
use mio::event::Source;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::link::{Peer, sys};

/// How long a client may take for its request, which it sends as soon as it has come.
const PATIENCE: Duration = Duration::from_secs(3);

/// A client that has come.
#[derive(Debug)]
pub struct Greeting {
    control: UnixStream,
    received: Vec<u8>,
    uid: u32,
    gid: u32,
    pid: i32,
    until: Instant,
}

impl Greeting {
    /// A client that has come on `control` at `now`.
    ///
    /// # Errors
    ///
    /// When the system does not say who it is.
    pub fn new(control: UnixStream, now: Instant) -> io::Result<Self> {
        let peer = getsockopt(&control, PeerCredentials)?;
        let (uid, gid, pid) = (peer.uid(), peer.gid(), peer.pid());
        Ok(Self { control, received: Vec::new(), uid, gid, pid, until: now + PATIENCE })
    }

    /// Its user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its groups.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn groups(&self) -> io::Result<Vec<u32>> {
        let mut groups = sys::peer_groups(&self.control)?;
        groups.push(self.gid);
        Ok(groups)
    }

    /// Who it is, and says it is.
    pub fn peer(&self, description: &str) -> Peer {
        Peer::Client { uid: self.uid, pid: self.pid, description: description.to_owned() }
    }

    /// When it has taken too long.
    pub fn deadline(&self) -> Instant {
        self.until
    }

    /// Adds it to the poll.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.control.register(registry, token, Interest::READABLE)
    }

    /// Takes it out of the poll.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.control.deregister(registry)
    }

    /// Listens to it: its request, once it is there.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when it is gone, `InvalidData` when that is no request, or the system's.
    pub fn hear(&mut self) -> io::Result<Option<Request>> {
        loop {
            // An octet more than the longest, so that what is too long is known to be.
            let mut room = [0; REQUEST_MAX + 1];
            let room = &mut room[self.received.len()..];
            match self.control.read(room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(octets) => self.received.extend_from_slice(&room[..octets]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let request = Request::parse(&self.received)
                .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
            if request.is_some() {
                return Ok(request);
            }
        }
    }

    /// Answers it, and gives the connection to it.
    pub(super) fn answer(mut self, reply: &[u8; REPLY_LEN]) -> io::Result<UnixStream> {
        self.control.write_all(reply)?;
        Ok(self.control)
    }
}
