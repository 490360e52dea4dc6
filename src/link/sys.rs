//! What needs `unsafe`, and nothing else does: taking over a file descriptor by its number, and the
//! requests to TAPs and packet sockets that no library has.
#![expect(unsafe_code, reason = "the system's own interface, where nobody has wrapped it")]

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc::{self, c_int, c_short, c_uint, ifreq};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::ForkResult;

/// Which of the two processes this is after a [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fork {
    /// The one that there was.
    Parent,
    /// The new one.
    Child,
}

/// Makes another process of this one, which must have no other thread.
pub(crate) fn fork() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("there are threads already"));
    }
    // SAFETY: there is no other thread, whose locks the new process would find taken for ever.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { .. } => Ok(Fork::Parent),
        ForkResult::Child => Ok(Fork::Child),
    }
}

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
        return Err(io::Error::from_raw_os_error(libc::EBADF));
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

/// The number of the network namespace that a socket is in, which no other gets until the next boot.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 5.14.
pub(crate) fn namespace_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = [0_u8; size_of::<u64>()];
    let mut length = libc::socklen_t::try_from(cookie.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` octets to `cookie`, which is that long and outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            cookie.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(u64::from_ne_bytes(cookie)) }
}

/// The groups of the process at the other end of a unix socket, as they were when it connected.
///
/// # Errors
///
/// `ERANGE` when these are more than [`GROUPS_MAX`].
pub(crate) fn peer_groups(socket: impl AsFd) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS_MAX];
    let mut length = libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` octets to `groups`, which is that long and outlives the call.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    groups.truncate(usize::try_from(length).map_err(io::Error::other)? / size_of::<libc::gid_t>());
    Ok(groups)
}

/// The most groups of a process that are looked at.
const GROUPS_MAX: usize = 1024;

/// `asm-generic/socket.h`.
const SO_NETNS_COOKIE: c_int = 71;

/// Descriptors that one message may pass (`SCM_MAX_FD`).
const PASSED_MAX: usize = 253;

/// Waits for the descriptors that the process at the other end of `socket` passes in one message; none
/// when it ends without.
pub(crate) fn receive_descriptors(socket: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let (mut octet, mut control) = ([0], nix::cmsg_space!([RawFd; PASSED_MAX]));
    let mut parts = [IoSliceMut::new(&mut octet)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut passed = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the system has just made them for us.
            passed.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(passed)
}

/// Attaches `tap`, an open `/dev/net/tun` or macvtap, to the interface `name`, which is made when
/// there is none; with `offload`, a header in front of each frame says what is left to be done. Returns
/// its real name, as a pattern is filled in.
pub(crate) fn attach_tap(tap: impl AsFd, name: &str, offload: bool) -> io::Result<String> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | if offload { libc::IFF_VNET_HDR } else { 0 };
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = c_short::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the request is an ifreq, which is what this reads and writes.
    Errno::result(unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(name_of(&request))
}

/// The name and the flags of the interface that `tap` is attached to; an error when it is no TAP.
pub(crate) fn tap_interface(tap: impl AsFd) -> io::Result<(String, c_int)> {
    let mut request = request("")?;
    // SAFETY: the request is an ifreq, which is what this writes.
    Errno::result(unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: the flags are plain numbers, and the request was zero before.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((name_of(&request), c_int::from(flags)))
}

/// Does `tap` stay when it is closed?
pub(crate) fn is_tap_persistent(tap: impl AsFd) -> io::Result<bool> {
    Ok(tap_interface(tap)?.1 & libc::IFF_PERSIST != 0)
}

/// Says what the reader of `tap` does itself with what it gets (`TUN_F_*`): nothing, for 0.
pub(crate) fn set_tap_offload(tap: impl AsFd, features: c_uint) -> io::Result<()> {
    // SAFETY: this request takes a number.
    Errno::result(unsafe {
        libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(features))
    })?;
    Ok(())
}

/// Octets in front of each frame of a `tap` that has such a header.
pub(crate) fn tap_header_len(tap: impl AsFd) -> io::Result<usize> {
    let mut octets: c_int = 0;
    // SAFETY: this request writes a number.
    Errno::result(unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNGETVNETHDRSZ, &raw mut octets) })?;
    usize::try_from(octets).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Lets `tap` stay when it is closed; then only `uid` and root may open it again.
pub(crate) fn keep_tap(tap: impl AsFd, uid: libc::uid_t) -> io::Result<()> {
    let fd = tap.as_fd().as_raw_fd();
    for (request, value) in [(libc::TUNSETOWNER, libc::c_ulong::from(uid)), (libc::TUNSETPERSIST, 1)] {
        // SAFETY: both requests take a number.
        Errno::result(unsafe { libc::ioctl(fd, request, value) })?;
    }
    Ok(())
}

/// Sets an option of a packet socket that is a number.
pub(crate) fn set_packet_option(socket: impl AsFd, option: c_int, value: c_int) -> io::Result<()> {
    set_option(socket, option, &value)
}

/// Lets a packet socket see whatever passes the interface `index`, until it is closed.
pub(crate) fn be_promiscuous(socket: impl AsFd, index: u32) -> io::Result<()> {
    let index = c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let kind = libc::c_ushort::try_from(libc::PACKET_MR_PROMISC).map_err(|_| io::ErrorKind::InvalidInput)?;
    let request = libc::packet_mreq { mr_ifindex: index, mr_type: kind, mr_alen: 0, mr_address: [0; 8] };
    set_option(socket, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// Binds a packet socket to the interface `index`, for frames of every type.
pub(crate) fn bind_packet(socket: impl AsFd, index: u32) -> io::Result<()> {
    let every_type = u16::try_from(libc::ETH_P_ALL).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: zeros are an address of this family.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family =
        libc::sa_family_t::try_from(libc::AF_PACKET).map_err(|_| io::ErrorKind::InvalidInput)?;
    address.sll_protocol = every_type.to_be();
    address.sll_ifindex = c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the address is one, of the length that is said.
    Errno::result(unsafe { libc::bind(fd, (&raw const address).cast(), socklen::<libc::sockaddr_ll>()) })?;
    Ok(())
}

fn set_option<T>(socket: impl AsFd, option: c_int, value: &T) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the value lives, and is as long as is said; what it means is the system's to check.
    Errno::result(unsafe {
        libc::setsockopt(fd, libc::SOL_PACKET, option, (&raw const *value).cast(), socklen::<T>())
    })?;
    Ok(())
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}

/// A request about the interface `name`.
fn request(name: &str) -> io::Result<ifreq> {
    // SAFETY: zeros are a request without a name.
    let mut request: ifreq = unsafe { mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn name_of(request: &ifreq) -> String {
    let octets = request.ifr_name.iter().map(|octet| octet.to_ne_bytes()[0]).take_while(|&octet| octet != 0);
    String::from_utf8_lossy(&octets.collect::<Vec<u8>>()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn a_number_is_taken_once_and_must_be_open() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let number = ours.into_raw_fd();
        let fd = take_inherited(number).unwrap();
        assert_eq!(fd.as_raw_fd(), number);
        assert_eq!(take_inherited(number).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(take_inherited(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(take_inherited(999_999).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn a_peer_has_groups() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(peer_groups(&one).unwrap(), own);
    }

    #[test]
    fn a_process_with_threads_is_not_doubled() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || held.recv());
        assert_eq!(fork().unwrap_err().to_string(), "there are threads already");
        drop(release);
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn sockets_of_one_namespace_have_one_cookie() {
        let (one, other) = UnixStream::pair().unwrap();
        let cookie = namespace_cookie(&one).unwrap();
        assert_eq!(namespace_cookie(&other).unwrap(), cookie);
        assert_ne!(cookie, 0);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(namespace_cookie(&file).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
}
