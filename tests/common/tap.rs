//! A TAP of the test's own. The only file of the tests with `unsafe`: the calls that make a TAP of the device have no safe
//! form.
#![expect(unsafe_code, reason = "ioctl takes a pointer, or a number, as the request says")]

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc::{self, c_int, c_uint};

use super::net::have_namespaces;
use super::require::require;

const DEVICE: &str = "/dev/net/tun";

/// Checksums, TCP over both versions of IP, and ECN, as `linux/if_tun.h` numbers them.
const TAKE_ALL: c_uint = 0x01 | 0x02 | 0x04 | 0x08;

/// Can tests make TAPs in networks of their own? Says so if not.
pub(crate) fn have_taps() -> bool {
    have_namespaces() && require("root", &[], &[DEVICE.into()])
}

/// Is there a header in front of each frame?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vnet {
    None,
    /// One of so many octets.
    Header(c_int),
}

pub(crate) struct Tap {
    file: File,
    vnet: Vnet,
}

impl Tap {
    /// Makes a TAP called `name` in the namespace of this thread. It is gone when it is dropped.
    ///
    /// With a header it takes frames as bundles and without checksums, too.
    pub(crate) fn create(name: &str, vnet: Vnet) -> Self {
        let mut options = File::options();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE);
        let file = file.expect("root may open the device");
        let flag = if vnet == Vnet::None { 0 } else { libc::IFF_VNET_HDR };
        let flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | flag).expect("they have 16 bits");
        // SAFETY: all of it is numbers and arrays of them, which may be zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        assert!(name.len() < request.ifr_name.len());
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = flags;
        // SAFETY: the request has the name and the flags that are asked for, and outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) });
        let mut offload = 0;
        if let Vnet::Header(len) = vnet {
            // SAFETY: the call reads an int, which outlives it.
            check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) });
            offload = TAKE_ALL;
        }
        // SAFETY: the argument is a number.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offload) });
        Self { file, vnet }
    }

    /// Writes a frame in pieces, the first of them its header of 10 octets if it has one.
    pub(crate) fn write(&self, vnet: [u8; 10], pieces: &[&[u8]]) {
        let mut header = vnet.to_vec();
        header.resize(self.header_len(), 0);
        let all: Vec<_> = [&header[..]].iter().chain(pieces).map(|piece| IoSlice::new(piece)).collect();
        let len: usize = all.iter().map(|piece| piece.len()).sum();
        let written = (&self.file).write_vectored(&all);
        assert_eq!(written.expect("the kernel takes the frame"), len);
    }

    /// The next frame and its header, if there is one.
    pub(crate) fn try_read(&self) -> Option<([u8; 10], Vec<u8>)> {
        let mut room = vec![0; 1 << 17];
        match (&self.file).read(&mut room) {
            Ok(len) => room.truncate(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("read from a TAP: {error}"),
        }
        let mut vnet = [0; 10];
        let frame = room.split_off(self.header_len());
        let len = room.len().min(vnet.len());
        vnet[..len].copy_from_slice(&room[..len]);
        Some((vnet, frame))
    }

    /// For another program to have.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    fn header_len(&self) -> usize {
        match self.vnet {
            Vnet::None => 0,
            Vnet::Header(len) => usize::try_from(len).expect("it is small"),
        }
    }
}

fn check(result: c_int) {
    assert!(result >= 0, "set up a TAP: {}", io::Error::last_os_error());
}
