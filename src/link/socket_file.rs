//! The file of a unix socket that we serve: made with its permissions, replacing a dead one and
//! nothing else, and removed only while it is still ours.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use mio::net::UnixListener;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::{Mode, fchmod, umask};
use nix::unistd::{Gid, fchownat, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::UNIX_NAME_MAX;

/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 1024;

/// How often, and how long apart, another program that starts in the same folder is waited for.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A socket file of ours; dropping it removes the file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Makes the socket file `path` with the permissions `mode`, and listens on it.
    ///
    /// # Errors
    ///
    /// When something lives there, or is no socket, or the folder refuses.
    pub fn listen(path: &Path, mode: u32) -> Result<(UnixListener, Self)> {
        let (socket, file) = Self::make(path, mode, Type::STREAM)?;
        socket.set_nonblocking(true)?;
        Ok((UnixListener::from_std(socket.into()), file))
    }

    /// The same for datagrams.
    ///
    /// # Errors
    ///
    /// As for [`Self::listen`].
    pub fn bind_datagram(path: &Path, mode: u32) -> Result<(Socket, Self)> {
        Self::make(path, mode, Type::DGRAM)
    }

    /// Another datagram socket takes over the file, which is there all the time and has `mode`, after `parting` with
    /// the former one: that keeps its name, and whoever is connected to it.
    ///
    /// # Errors
    ///
    /// When the folder refuses, or what is there is not ours any more, or `parting`'s; then all is as
    /// before.
    pub fn successor(&mut self, mode: u32, parting: impl FnOnce() -> io::Result<()>) -> io::Result<Socket> {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) != self.identity) {
            return Err(self.replaced());
        }
        let (socket, file) = self.bind_aside(mode)?;
        parting()?;
        fs::rename(&file.path, &self.path)?;
        self.identity = file.identity;
        Ok(socket)
    }

    /// Makes a socket beside the file, under a name that is as long and not in use.
    fn bind_aside(&self, mode: u32) -> io::Result<(Socket, Self)> {
        let mut name = self.path.as_os_str().as_bytes().to_vec();
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        let mut bound = Err(io::ErrorKind::AddrInUse.into());
        for last in b'a'..=b'z' {
            if let Some(octet) = name.last_mut() {
                *octet = last;
            }
            bound = Self::bind(&socket, Path::new(OsStr::from_bytes(&name)), mode);
            if !bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
        }
        Ok((socket, bound?))
    }

    /// Binds `socket` to `path`.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when something is there, or the folder's refusal.
    pub fn bind(socket: &Socket, path: &Path, mode: u32) -> io::Result<Self> {
        // The file is made with the mode of the socket: nobody may connect before that is set, and to set it
        // by the path might meet another file. The umask is the whole process's, which makes no other file here.
        fchmod(socket, Mode::from_bits_truncate(mode))?;
        let former = umask(Mode::empty());
        let bound = SockAddr::unix(path).and_then(|address| socket.bind(&address));
        umask(former);
        bound?;
        Ok(Self { path: path.to_owned(), identity: identity(&fs::symlink_metadata(path)?) })
    }

    /// A file that its maker leaves to us, if it is still the one of this device and inode then.
    pub fn left(path: &Path, identity: (u64, u64)) -> Self {
        Self { path: path.to_owned(), identity }
    }

    /// Gives the file to a group, or leaves it to its own, and makes it usable according to `mode`.
    ///
    /// # Errors
    ///
    /// When it is not the one that was made any more, or the system's.
    pub fn give_to(&self, group: Option<Gid>, mode: u32) -> io::Result<()> {
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(&self.path)?;
        let found = file.metadata()?;
        let is_ours = found.uid() == geteuid().as_raw() && found.nlink() == 1;
        if !found.file_type().is_socket() || !is_ours || identity(&found) != self.identity {
            return Err(self.replaced());
        }
        fchownat(&file, "", None, group, AtFlags::AT_EMPTY_PATH)?;
        fs::set_permissions(proc_path(&file), fs::Permissions::from_mode(mode))
    }

    fn replaced(&self) -> io::Error {
        io::Error::other(format!("{} has been replaced", self.path.display()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn make(path: &Path, mode: u32, kind: Type) -> Result<(Socket, Self)> {
        let octets = path.as_os_str().len();
        if octets > UNIX_NAME_MAX {
            bail!(
                "{}: a unix socket's path has at most {UNIX_NAME_MAX} octets, this one has {octets}; choose a shorter one",
                path.display()
            );
        }
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            bail!("the folder {} does not exist; create it first", folder.display());
        }
        let _lock = lock(folder);
        remove_if_dead(path)?;
        let socket = Socket::new(Domain::UNIX, kind, None)?;
        let file = Self::bind(&socket, path, mode).with_context(|| format!("serve {}", path.display()))?;
        if kind == Type::STREAM {
            // Until it listens, others take it for dead.
            socket.listen(BACKLOG)?;
        }
        Ok((socket, file))
    }
}

/// The very file that was opened, whatever has become of its path.
pub(super) fn proc_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // When it can't be removed, the next start finds it dead and tries again.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Keeps two hubs that start at once from removing each other's sockets. A folder that can't be
/// locked is used without.
#[expect(clippy::disallowed_methods, reason = "at start, before the loop")]
fn lock(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    for _ in 0..LOCK_TRIES {
        if folder.try_lock().is_ok() {
            return Some(folder);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    None
}

/// Removes a socket file that nobody serves any more.
///
/// # Errors
///
/// When something else is there, or somebody serves it.
pub(super) fn remove_if_dead(path: &Path) -> Result<()> {
    let shown = path.display();
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        bail!("{shown} exists and is no socket; remove it or choose another path");
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A live socket with a full backlog would block.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| {
                format!("remove the dead socket {shown}; remove it yourself or choose another path")
            })
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(anyhow!("{shown} is another user's socket; choose another path"))
        }
        _ => Err(anyhow!("a program is listening on {shown}; stop it or choose another path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener as StdListener, UnixStream};

    fn error(path: &Path) -> String {
        SocketFile::listen(path, 0o600).unwrap_err().to_string()
    }

    #[test]
    fn a_dead_socket_is_replaced_and_ours_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(StdListener::bind(&path).unwrap());
        let (_listener, file) = SocketFile::listen(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        UnixStream::connect(&path).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_ours_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "letter").unwrap();
        assert!(error(&path).contains("is no socket"));
        assert_eq!(fs::read(&path).unwrap(), b"letter");
        fs::remove_file(&path).unwrap();

        let live = StdListener::bind(&path).unwrap();
        assert!(error(&path).contains("a program is listening"));
        drop(live);
        fs::remove_file(&path).unwrap();

        let _datagrams = UnixDatagram::bind(&path).unwrap();
        assert!(error(&path).contains("a program is listening"));
        fs::remove_file(&path).unwrap();

        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(error(&path).contains("is no socket"));
        assert!(error(&folder.path().join("none/s")).contains("create it first"));
    }

    #[test]
    fn a_successor_keeps_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (_listener, file) = SocketFile::listen(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = StdListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
