//! Joining a VDE switch as its client.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

use hub_protocol::vde::{self, REPLY_LEN, Request};
use mio::event::Source;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Uid, geteuid};
use socket2::{Domain, Socket, Type};

use super::link::VdeLink;
use super::reach::connect;
use crate::config::VdePlace;
use crate::link::socket_file::{SocketFile, remove_if_dead};
use crate::link::{Peer, StreamSocket};

/// Where a client's socket may be when the switch's folder refuses it.
const ELSEWHERE: [(&str, &str); 3] = [("/var/run", "vde"), ("/var/tmp", "vde"), ("/tmp", "vde")];

/// Tells the sockets of this process from each other.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A client that has asked, and waits for the switch's answer.
#[derive(Debug)]
pub struct Joining {
    control: UnixStream,
    data: Socket,
    /// The file of `data`, until the switch has connected to it.
    _own: SocketFile,
    received: Vec<u8>,
    /// The switch's folder, and its device and inode.
    folder: (PathBuf, (u64, u64)),
}

impl Joining {
    /// Asks the switch at `place`.
    ///
    /// # Errors
    ///
    /// When there is none, or no place for our socket.
    pub fn begin(place: &VdePlace) -> io::Result<Self> {
        let entry = place.folder.join(place.entry());
        let folder = fs::canonicalize(&place.folder).map_err(|error| explain(error, &entry))?;
        let entry = folder.join(place.entry());
        let mut control = UnixStream::connect(&entry).map_err(|error| explain(error, &entry))?;
        if u32::try_from(getsockopt(&control, PeerCredentials)?.pid()) == Ok(process::id()) {
            return Err(io::Error::other(
                "this hub itself serves that folder; leave out one of the two ports",
            ));
        }
        let data = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        let own = bind(&data, &folder)?;
        admit(&own, &fs::metadata(&entry)?)?;
        let request = Request {
            port: place.port,
            path: own.path().as_os_str().as_bytes().to_vec(),
            description: format!("qhub user={} pid={}", geteuid(), process::id()),
        };
        control.write_all(&request.write().ok_or(io::ErrorKind::InvalidInput)?)?;
        let found = fs::metadata(&folder)?;
        let folder = (folder, (found.dev(), found.ino()));
        Ok(Self { control, data, _own: own, received: Vec::new(), folder })
    }

    /// The device and inode of the switch's folder.
    pub fn folder(&self) -> (u64, u64) {
        self.folder.1
    }

    /// Who answers.
    pub fn peer(&self) -> Peer {
        StreamSocket::peer_of(&self.control)
    }

    /// Adds it to the poll.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.control.register(registry, token, Interest::READABLE)
    }

    /// Takes it out of the poll.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.control.deregister(registry)
    }

    /// Has the switch answered? Then [`Self::finish`] is to be called.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub fn is_answered(&mut self) -> io::Result<bool> {
        while self.received.len() < REPLY_LEN {
            let mut room = [0; REPLY_LEN];
            let room = &mut room[self.received.len()..];
            match self.control.read(room) {
                Ok(0) => return Err(refusal()),
                Ok(octets) => self.received.extend_from_slice(&room[..octets]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(refusal()),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Connects to the socket that the switch has named.
    ///
    /// # Errors
    ///
    /// When it can't be connected to.
    pub fn finish(self) -> io::Result<VdeLink> {
        let reply = self.received.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let path =
            vde::parse_reply(reply).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        let (own, switch) = (geteuid(), Uid::from_raw(getsockopt(&self.control, PeerCredentials)?.uid()));
        // A switch that is root gives the socket to its client.
        let is_right = |owner| owner == switch.as_raw() || switch.is_root() && owner == own.as_raw();
        connect(&self.data, Path::new(OsStr::from_bytes(path)), &self.folder.0, is_right)?;
        VdeLink::joined(self.control, self.data)
    }
}

/// Why nobody answers at `entry`, and what to do.
fn explain(error: io::Error, entry: &Path) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => "there is no VDE switch; start one",
        Some(libc::ECONNREFUSED) => "that switch has died; start it again",
        Some(libc::EACCES) => "its owner has to let this user in, as by mode= and group=",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{}: {error}; {why}", entry.display()))
}

fn refusal() -> io::Error {
    io::Error::other("the switch refuses; see its log for the reason")
}

/// Binds the client's socket in the switch's folder, or elsewhere when that refuses.
fn bind(data: &Socket, folder: &Path) -> io::Result<SocketFile> {
    let name = format!(".{:05}-{:05}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let places = ELSEWHERE.map(|(folder, stem)| Path::new(folder).join(format!("{stem}{name}")));
    let places: Vec<PathBuf> = [folder.join(&name)].into_iter().chain(places).collect();
    let mut bound = Err(io::ErrorKind::NotFound.into());
    for place in places {
        // As one of an earlier process with this number may be.
        let _ = remove_if_dead(&place);
        bound = SocketFile::bind(data, &place, 0o700);
        if bound.is_ok() {
            break;
        }
    }
    bound
}

/// Lets a switch of another user send to our socket: one of its group, if we may give it to that.
fn admit(own: &SocketFile, entry: &fs::Metadata) -> io::Result<()> {
    if entry.uid() == geteuid().as_raw() || entry.uid() == 0 {
        return Ok(());
    }
    if own.give_to(Some(Gid::from_raw(entry.gid())), 0o770).is_err() {
        own.give_to(None, 0o777)?;
    }
    Ok(())
}
