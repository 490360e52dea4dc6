//! A VDE switch: the socket that clients come to, and one for each of them.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hub_protocol::vde::{self, Request};
use nix::libc;
use nix::unistd::{Gid, Group, Uid, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};

use super::folder::{self, OwnFolder};
use super::greeting::Greeting;
use super::link::VdeLink;
use crate::config::{UNIX_NAME_MAX, Vde};
use crate::link::listener::Listener;
use crate::link::socket_file::{SocketFile, proc_path, remove_if_dead};

/// The longest name of a socket in it.
const NAME_MAX: usize = 16;

/// Names that are tried for a socket, and how far apart their numbers are: descriptors are hardly so many.
const NAMES: usize = 4;
const OTHER_NAME: usize = 10_000_000;

/// A switch.
#[derive(Debug)]
pub struct VdeSwitch {
    path: PathBuf,
    socket_mode: u32,
    group: Option<Gid>,
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
        let own = folder::make(&vde.folder)?;
        let path = fs::canonicalize(&vde.folder).context("find its folder")?;
        let longest = path.as_os_str().len() + 1 + NAME_MAX;
        if longest > UNIX_NAME_MAX {
            bail!(
                "the path of the folder is {} octets too long; choose a shorter one",
                longest - UNIX_NAME_MAX
            );
        }
        let mode = vde.socket_mode();
        let at_first = if group.is_some() { 0o600 } else { mode };
        let (socket, mut file) = SocketFile::listen(&path.join(vde.entry()), at_first)?;
        if group.is_some() {
            file.give_to(None, group, mode).with_context(|| explain_group(&vde.folder))?;
        }
        if vde.mode.is_some() || group.is_some() {
            folder::admit(&vde.folder, vde.folder_mode(), group)
                .with_context(|| explain_group(&vde.folder))?;
        }
        folder::clean(&path);
        let listener = Listener::Unix { socket, file: Some(file), any_user: true };
        Ok((Self { path, socket_mode: mode, group, own }, listener))
    }

    /// Connects a client that is to have the port `number`, and tells it so.
    ///
    /// # Errors
    ///
    /// When its socket can't be used; says what is wrong with it.
    pub fn plug(&self, client: Greeting, request: &Request, number: u16) -> io::Result<VdeLink> {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        let path = Path::new(OsStr::from_bytes(&request.path));
        let theirs = connect(&socket, path, |owner| owner == client.uid()).inspect_err(|_| {
            if self.is_clients(path) {
                // It was killed while it waited.
                let _ = remove_if_dead(path);
            }
        })?;
        let mut ours = self.bind(&socket, number)?;
        if geteuid().is_root() {
            ours.give_to(Some(Uid::from_raw(client.uid())), self.group, self.socket_mode & 0o770 | 0o600)?;
        } else if client.uid() != geteuid().as_raw() {
            // Nobody else can connect to it any more, whoever may.
            ours.give_to(None, self.group, self.socket_mode | 0o600)?;
        }
        let reply = vde::reply(ours.path().as_os_str().as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
        let control = client.answer(&reply)?;
        let left = self.is_clients(path).then(|| SocketFile::left(path, theirs));
        VdeLink::plugged(control, socket, ours, left, self.own.clone())
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
        bound
    }

    /// Is this a file of the kind that dead clients leave in this folder?
    fn is_clients(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        path.parent() == Some(&self.path) && folder::is_client_name(name.as_bytes())
    }
}

fn explain_group(folder: &Path) -> String {
    format!(
        "give {} its mode and group; but for root, group= has to be one of the user's own",
        folder.display()
    )
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn find_group(name: &str) -> Result<Gid> {
    let by_name = Group::from_name(name).context("look up the group")?;
    match (by_name, name.parse()) {
        (Some(group), _) => Ok(group.gid),
        (None, Ok(number)) => Ok(Gid::from_raw(number)),
        (None, Err(_)) => bail!("there is no group '{name}'; see 'getent group'"),
    }
}

/// Connects `socket` to that of the other end, whose owner `is_right`: else it could let us send to the
/// socket of somebody who is not there. Returns which file it is.
pub(super) fn connect(
    socket: &Socket,
    path: &Path,
    is_right: impl Fn(u32) -> bool,
) -> io::Result<(u64, u64)> {
    let explain = |error: io::Error| {
        let shown = path.display().to_string();
        io::Error::other(format!("its socket {} can't be used: {error}", shown.escape_debug()))
    };
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(explain)?;
    let found = file.metadata()?;
    if !is_right(found.uid()) {
        let error = format!("it belongs to another user, uid {}", found.uid());
        return Err(explain(io::Error::other(error)));
    }
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(proc_path(&file))?).map_err(explain)?;
    Ok((found.dev(), found.ino()))
}
