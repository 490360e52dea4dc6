//! Connecting to a socket by the path that somebody else has named.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::Mode;
use socket2::{SockAddr, Socket};

use crate::link::socket_file::proc_path;

/// To look at a file, not through a link.
const ONLY_LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// How often a look-up is tried that something else has disturbed.
const TRIES: usize = 4;

/// Connects `socket` to the one at `path`, in the switch's `folder` as a rule, whose owner `is_right`: else who
/// named it could let us send to the socket of somebody who knows of nothing. Returns which file it is.
pub(super) fn connect(
    socket: &Socket,
    path: &Path,
    folder: &Path,
    is_right: impl Fn(u32) -> bool,
) -> io::Result<(u64, u64)> {
    let explain = |error: io::Error| {
        let shown = path.display().to_string();
        let text = format!("its socket {} can't be used: {error}", shown.escape_debug());
        io::Error::new(error.kind(), text)
    };
    // Our own sockets are there, too: whatever it is on is waited for in any case.
    let opened = if path.parent() == Some(folder) { open(path) } else { open_at_once(path) };
    let file = opened.map_err(explain)?;
    let found = file.metadata()?;
    if !found.file_type().is_socket() {
        return Err(explain(io::Error::other("it is no socket")));
    }
    if !is_right(found.uid()) {
        let error = format!("it belongs to another user, uid {}", found.uid());
        return Err(explain(io::Error::other(error)));
    }
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(proc_path(&file))?).map_err(explain)?;
    Ok((found.dev(), found.ino()))
}

/// Opens a file without any right to it.
fn open(path: &Path) -> io::Result<File> {
    Ok(nix::fcntl::open(path, ONLY_LOOK, Mode::empty())?.into())
}

/// The same, but a look-up that would have to wait, as below a mount that does not answer, fails: where files are
/// on this host, that of a socket which somebody serves never does.
fn open_at_once(path: &Path) -> io::Result<File> {
    let how = OpenHow::new().flags(ONLY_LOOK);
    let at_once = ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED);
    let mut opened = Err(Errno::EAGAIN);
    for _ in 0..TRIES {
        opened = openat2(AT_FDCWD, path, how.resolve(at_once));
        if !matches!(opened, Err(Errno::EAGAIN)) {
            break;
        }
    }
    match opened {
        Ok(file) => Ok(file.into()),
        // Linux before 5.12 and 5.6.
        Err(Errno::EINVAL | Errno::ENOSYS) => open(path),
        Err(Errno::EAGAIN) => Err(io::Error::other("it is not there, or only to be found by waiting")),
        Err(errno) => Err(errno.into()),
    }
}
