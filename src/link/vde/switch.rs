//! A VDE switch: the socket that clients come to, and one for each of them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hub_protocol::vde::{self, Request};
use nix::unistd::{Gid, Group};
use socket2::{Domain, Socket, Type};

use super::folder::{self, OwnFolder};
use super::greeting::Greeting;
use super::link::VdeLink;
use super::reach::connect;
use crate::config::{UNIX_NAME_MAX, Vde};
use crate::link::listener::Listener;
use crate::link::socket_file::{SocketFile, remove_if_dead};

/// The longest name of a socket in it.
const NAME_MAX: usize = 16;

/// Names that are tried for a socket, and how far apart their numbers are: descriptors are hardly so many.
const NAMES: usize = 4;
const OTHER_NAME: usize = 10_000_000;

/// A switch.
#[derive(Debug)]
pub struct VdeSwitch {
    path: PathBuf,
    /// The socket that clients come to.
    entry: PathBuf,
    own: Option<OwnFolder>,
}

impl VdeSwitch {
    /// Opens the switch that is asked for: its folder, which is made when it is missing, and the socket that
    /// clients come to. Dead sockets in the folder are removed.
    ///
    /// # Errors
    ///
    /// When another switch lives there, or the system refuses; says what to do.
    pub fn open(vde: &Vde) -> Result<(Self, Listener)> {
        let group = vde.group.as_deref().map(find_group).transpose()?;
        let is_asked = vde.mode.is_some() || group.is_some();
        let own = folder::make(&vde.folder, is_asked)?;
        let path = fs::canonicalize(&vde.folder).context("find its folder")?;
        let longest = path.as_os_str().len() + 1 + NAME_MAX;
        if longest > UNIX_NAME_MAX {
            bail!(
                "the path of the folder is {} octets too long; choose a shorter one",
                longest - UNIX_NAME_MAX
            );
        }
        // Whoever serves there already is not to find the folder changed.
        let entry = path.join(vde.entry());
        let (socket, file) = SocketFile::listen(&entry, 0o600)?;
        let asked = if own.is_some() { Some(vde.folder_mode()) } else { vde.mode };
        if asked.is_some() || group.is_some() {
            folder::admit(&path, asked, group)
                .and_then(|()| file.give_to(group, vde.socket_mode()))
                .with_context(|| explain(&path, vde.group.as_deref()))?;
        }
        folder::clean(&path);
        let listener = Listener::Unix { socket, file: Some(file), any_user: true };
        Ok((Self { path, entry, own }, listener))
    }

    /// Connects a client that is to have the port `number`, and tells it so.
    ///
    /// # Errors
    ///
    /// When its socket can't be used; says what is wrong with it.
    pub fn plug(&self, client: Greeting, request: &Request, number: u16) -> io::Result<VdeLink> {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        let path = Path::new(OsStr::from_bytes(&request.path));
        let theirs = connect(&socket, path, &self.path, |owner| owner == client.uid()).inspect_err(|_| {
            if self.is_clients(path) {
                // It was killed while it waited.
                let _ = remove_if_dead(path);
            }
        })?;
        let ours = self.bind(&socket, number)?;
        let reply = vde::reply(ours.path().as_os_str().as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
        // Of a client that is killed just now, the socket may be closed last.
        let theirs = self.is_clients(path).then(|| SocketFile::left(path, theirs));
        let control = client.answer(&reply)?;
        VdeLink::plugged(control, socket, ours, theirs, self.own.clone())
    }

    /// Binds a socket for a client of the port `number`, under a name that nobody has taken.
    fn bind(&self, socket: &Socket, number: u16) -> io::Result<SocketFile> {
        let mut bound = Err(io::ErrorKind::AddrInUse.into());
        for last in (socket.as_raw_fd()..).step_by(OTHER_NAME).take(NAMES) {
            let path = self.path.join(format!("{number:03}.{last}"));
            bound = SocketFile::bind(socket, &path, 0o600);
            if bound.as_ref().is_err_and(is_taken) && remove_if_dead(&path).is_ok() {
                bound = SocketFile::bind(socket, &path, 0o600);
            }
            if !bound.as_ref().is_err_and(is_taken) {
                break;
            }
        }
        let file = bound?;
        // Who may join may send to the socket of a client that is dead, and nobody else: as it is now, for people
        // change the permissions of the socket that they know.
        let entry = fs::symlink_metadata(&self.entry)?;
        let mode = entry.mode() & 0o666 | 0o600;
        // It may be a group that this user is not in.
        if mode != 0o600 && file.give_to(Some(Gid::from_raw(entry.gid())), mode).is_err() {
            file.give_to(None, mode & !0o070)?;
        }
        Ok(file)
    }

    /// Is this a file of the kind that dead clients leave in this folder?
    fn is_clients(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        path.parent() == Some(&self.path) && folder::is_client_name(name.as_bytes())
    }
}

/// What is done to a folder, and what is needed for it.
fn explain(folder: &Path, group: Option<&str>) -> String {
    match group {
        None => format!("set the mode of {}", folder.display()),
        Some(group) => format!(
            "give {} to the group {group}, which has to be one of the user's own, but for root",
            folder.display()
        ),
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// The group of a name, or of a number. The system may ask a directory service for it, so only at start.
///
/// # Errors
///
/// When there is none; says what to do.
pub(crate) fn find_group(name: &str) -> Result<Gid> {
    let by_name = Group::from_name(name).context("look up the group")?;
    match (by_name, name.parse()) {
        (Some(group), _) => Ok(group.gid),
        (None, Ok(number)) => Ok(Gid::from_raw(number)),
        (None, Err(_)) => bail!("there is no group '{name}'; see 'getent group'"),
    }
}
