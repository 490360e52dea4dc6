//! What needs `unsafe`, and nothing else does: taking over a file descriptor by its number.
#![expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes over the inherited descriptor `number`, and keeps it from our own children.
///
/// To be called before the program opens anything itself, which `daemon::run` does: a number tells
/// nothing of its origin.
///
/// # Errors
///
/// `EBADF` when nothing is open under that number, `AlreadyExists` when it was taken before.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    let taken_before = || io::Error::new(io::ErrorKind::AlreadyExists, "it is used by another port already");
    let mut taken = TAKEN.lock().map_err(|_| taken_before())?;
    if number < 0 {
        return Err(io::Error::from_raw_os_error(nix::libc::EBADF));
    }
    if taken.contains(&number) {
        return Err(taken_before());
    }
    // SAFETY: the number is not negative, and the borrow ends with the call, which only asks
    // whether it is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    taken.insert(number);
    // SAFETY: it is open, was not made by this program, and is handed out once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn a_number_is_taken_once_and_must_be_open() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = ours.into_raw_fd();
        let fd = take_inherited(number).unwrap();
        assert_eq!(fd.as_raw_fd(), number);
        assert_eq!(take_inherited(number).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(take_inherited(-1).unwrap_err().raw_os_error(), Some(nix::libc::EBADF));
        assert_eq!(take_inherited(999_999).unwrap_err().raw_os_error(), Some(nix::libc::EBADF));
    }
}
