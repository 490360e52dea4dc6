//! Connecting to a socket by the path that somebody else has named.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::Mode;
use socket2::{SockAddr, Socket};

use crate::link::socket_file::proc_path;

/// How often a look-up is tried that something else has disturbed.
const TRIES: usize = 4;

/// Connects `socket` to the one at `path`, whose owner `is_right`: else who named it could let us send to the
/// socket of somebody who knows of nothing. Returns which file it is.
pub(super) fn connect(
    socket: &Socket,
    path: &Path,
    is_right: impl Fn(u32) -> bool,
) -> io::Result<(u64, u64)> {
    let explain = |error: io::Error| {
        let shown = path.display().to_string();
        let text = format!("its socket {} can't be used: {error}", shown.escape_debug());
        io::Error::new(error.kind(), text)
    };
    let file = open(path).map_err(explain)?;
    let found = file.metadata()?;
    if !is_right(found.uid()) {
        let error = format!("it belongs to another user, uid {}", found.uid());
        return Err(explain(io::Error::other(error)));
    }
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(proc_path(&file))?).map_err(explain)?;
    Ok((found.dev(), found.ino()))
}

/// Opens a file without any right to it. A look-up that would have to wait, as below a mount that does not
/// answer, fails: that of a socket which somebody serves never does.
fn open(path: &Path) -> io::Result<File> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC);
    let at_once = ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED);
    let mut opened = Err(Errno::EAGAIN);
    for _ in 0..TRIES {
        opened = openat2(AT_FDCWD, path, how.resolve(at_once));
        if !matches!(opened, Err(Errno::EAGAIN)) {
            break;
        }
    }
    if matches!(opened, Err(Errno::EINVAL | Errno::ENOSYS)) {
        // Linux before 5.12 and 5.6.
        opened = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    }
    Ok(opened?.into())
}
