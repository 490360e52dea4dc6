//! What needs `unsafe`, and nothing else of the benchmark does: attaching to a TAP, and sockets for raw frames.
#![expect(unsafe_code, reason = "nobody wraps the ioctls of a TAP and the options of a packet socket")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::frame::EXPERIMENTAL;

/// Attaches to the TAP of that name in this namespace, or makes it. With `offload` each frame stands behind a
/// `virtio_net_hdr`, and may be a TCP segment of up to 64 KiB without a checksum.
pub(crate) fn open_tap(name: &str, offload: bool) -> io::Result<File> {
    let tap =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let header = if offload { libc::IFF_VNET_HDR } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | header;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags.try_into().map_err(io::Error::other)? },
    };
    // The last one stays zero.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
    Errno::result(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let ours = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let ours = libc::c_ulong::from(if offload { ours } else { 0 });
    // SAFETY: the argument is a number.
    Errno::result(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, ours) })?;
    Ok(tap)
}

/// A socket for our frames on an interface of this namespace.
pub(crate) fn packet_socket(interface: &str) -> anyhow::Result<Socket> {
    let protocol = u16::from_ne_bytes(EXPERIMENTAL);
    let index = i32::try_from(if_nametoindex(interface)?)?;
    // Without a protocol it hears nothing until it is bound.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let init = |storage: *mut SockAddrStorage, length: *mut libc::socklen_t| {
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
            sll_protocol: protocol,
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let size = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
        // SAFETY: the storage has room and the alignment for every kind of address, and `length` is ours to write.
        unsafe {
            ptr::write(storage.cast(), address);
            ptr::write(length, size);
        }
        Ok(())
    };
    // SAFETY: `init` fills in a whole address of the family that it names, and its length.
    let ((), address) = unsafe { SockAddr::try_init(init) }?;
    socket.bind(&address)?;
    Ok(socket)
}

/// Frames that found no room in the buffer of a packet socket, since this was last asked.
pub(crate) fn packets_dropped(socket: impl AsFd) -> io::Result<u64> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut size = libc::socklen_t::try_from(size_of_val(&stats)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes no more than `size` bytes to `stats`; both outlive the call.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut size,
        )
    })?;
    Ok(stats.tp_drops.into())
}
