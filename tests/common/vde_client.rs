//! A bare client of a VDE switch, which takes one step at a time.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Octets of a request without its description, in versions 3 and 1.
pub(crate) const V3_LEN: usize = 122;
pub(crate) const V1_LEN: usize = 124;

/// Octets of an answer.
pub(crate) const ANSWER_LEN: usize = 110;

/// What it says it is.
pub(crate) const DESCRIPTION: &[u8] = b"a test: user=nobody pid=1";

/// What the switch says to a client that has asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing yet.
    None,
    /// That it refuses.
    Refused,
    /// Where its socket for this client is.
    Socket(PathBuf),
}

/// A client, and the file of its datagram socket, which stays like that of one that is killed, unless it has
/// taken it away before.
pub(crate) struct Client {
    pub(crate) control: UnixStream,
    pub(crate) data: UnixDatagram,
    /// Where its datagram socket is.
    pub(crate) path: PathBuf,
}

impl Client {
    /// It comes to the switch, with its socket in the switch's folder.
    pub(crate) fn come(folder: &Path) -> Self {
        Self::come_to(&folder.join("ctl"), &own_path(folder))
    }

    /// It comes to the socket `entry`, with its own at `path`.
    pub(crate) fn come_to(entry: &Path, path: &Path) -> Self {
        let control = UnixStream::connect(entry)
            .unwrap_or_else(|error| panic!("connect to {}: {error}", entry.display()));
        let data =
            UnixDatagram::bind(path).unwrap_or_else(|error| panic!("bind {}: {error}", path.display()));
        control.set_nonblocking(true).expect("an open socket");
        data.set_nonblocking(true).expect("an open socket");
        Self { control, data, path: path.to_owned() }
    }

    /// Its request, of version 3.
    pub(crate) fn request(&self, port: Option<u32>) -> Vec<u8> {
        request(port, &self.path, DESCRIPTION)
    }

    /// Asks for a port.
    pub(crate) fn ask(&mut self, port: Option<u32>) {
        let request = self.request(port);
        self.say(&request);
    }

    /// Says something, which is not much.
    pub(crate) fn say(&mut self, octets: &[u8]) {
        self.control.write_all(octets).expect("room");
    }

    /// What the switch has said until now.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = [0; ANSWER_LEN];
        match self.control.read(&mut answer) {
            Ok(0) => Answer::Refused,
            Ok(octets) => {
                assert_eq!(octets, ANSWER_LEN, "it comes in one piece");
                Answer::Socket(path_in(&answer))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Answer::None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Answer::Refused,
            Err(error) => panic!("read the answer: {error}"),
        }
    }

    /// Connects to the socket that the switch has for it, and takes its own file away.
    pub(crate) fn plug_into(&self, socket: &Path) {
        self.data.connect(socket).unwrap_or_else(|error| panic!("connect to {}: {error}", socket.display()));
        fs::remove_file(&self.path).expect("its own file");
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        assert!(self.try_send(frame), "there is room");
    }

    /// Sends if there is room.
    pub(crate) fn try_send(&self, frame: &[u8]) -> bool {
        match self.data.send(frame) {
            Ok(octets) => octets == frame.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("send: {error}"),
        }
    }

    /// The next frame, if there is one now.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 1 << 17];
        match self.data.recv(&mut frame) {
            Ok(octets) => {
                frame.truncate(octets);
                Some(frame)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("receive: {error}"),
        }
    }

    /// All frames that can be read now.
    pub(crate) fn read_all(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.read()).collect()
    }

    /// Has the switch let it go?
    pub(crate) fn is_let_go(&mut self) -> bool {
        match self.control.read(&mut [0; 16]) {
            Ok(octets) => octets == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// A path in `folder` as clients choose it, for one socket of this process.
pub(crate) fn own_path(folder: &Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    folder.join(format!(".{:05}-{:05}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// A request of version 3.
pub(crate) fn request(port: Option<u32>, path: &Path, description: &[u8]) -> Vec<u8> {
    let kind = match port {
        None => 0,
        Some(0) => 1,
        Some(port) => port << 8,
    };
    [&words(&[0xfeed_face, 3, kind]), &address(path)[..], description].concat()
}

/// One of version 1, which knows no numbers of ports but 0.
pub(crate) fn old_request(is_port_0: bool, path: &Path, description: &[u8]) -> Vec<u8> {
    let head = words(&[0xfeed_face, is_port_0.into()]);
    [&head[..], &[0x77; 6], &address(path), description].concat()
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The address of a unix socket, of as many octets as there may be.
pub(crate) fn address(path: &Path) -> [u8; ANSWER_LEN] {
    let mut address = [0; ANSWER_LEN];
    let path = path.as_os_str().as_bytes();
    address[..2].copy_from_slice(&1_u16.to_ne_bytes());
    address[2..][..path.len()].copy_from_slice(path);
    address
}

fn path_in(address: &[u8; ANSWER_LEN]) -> PathBuf {
    assert_eq!(address[..2], 1_u16.to_ne_bytes(), "the family of unix sockets");
    let path = address[2..].split(|&octet| octet == 0).next().unwrap_or_default();
    std::ffi::OsStr::from_bytes(path).into()
}
