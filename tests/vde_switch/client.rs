//! A client of a VDE switch, as libvdeplug is one.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::wait::LIMIT;
use crate::common::wire::{BROADCAST, frame, mac};

pub(crate) struct Client {
    /// As long as this is open, the switch has a port for it.
    control: UnixStream,
    data: UnixDatagram,
}

impl Client {
    /// Joins the switch in `switch` with a socket in `folder`; `port` 0 is any.
    pub(crate) fn join(switch: &Path, folder: &Path, port: u32, description: &str) -> Self {
        Self::try_join(switch, folder, port, description).expect("the switch takes it")
    }

    /// The same; `None` when the switch hangs up.
    pub(crate) fn try_join(switch: &Path, folder: &Path, port: u32, description: &str) -> Option<Self> {
        static CLIENTS: AtomicU32 = AtomicU32::new(0);
        let path = folder.join(format!("client{}", CLIENTS.fetch_add(1, Ordering::Relaxed)));
        let data = UnixDatagram::bind(&path).expect("a socket");
        let mut control = UnixStream::connect(switch.join("ctl")).expect("the switch listens");
        control.set_read_timeout(Some(LIMIT)).expect("an option of a socket");
        let mut request = Vec::new();
        for number in [0xfeed_face, 3, port << 8] {
            request.extend_from_slice(&u32::to_ne_bytes(number));
        }
        request.extend_from_slice(&address(&path));
        request.extend_from_slice(description.as_bytes());
        let mut reply = [0; 110];
        let answered = control.write_all(&request).and_then(|()| control.read_exact(&mut reply));
        fs::remove_file(&path).expect("it is ours");
        let is_refusal = |kind| {
            matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
        };
        match answered {
            Err(error) if is_refusal(error.kind()) => return None,
            answered => answered.expect("the switch answers"),
        }
        let end = reply[2..].iter().position(|&octet| octet == 0).expect("a path ends") + 2;
        data.connect(std::str::from_utf8(&reply[2..end]).expect("a path")).expect("the switch's socket");
        data.set_read_timeout(Some(LIMIT)).expect("an option of a socket");
        Some(Self { control, data })
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        self.data.send(frame).expect("the switch takes it");
    }

    /// A broadcast from station `number`.
    pub(crate) fn call(&self, number: u16) {
        let [high, low] = number.to_be_bytes();
        let mut source = mac(low);
        source[4] = high;
        self.send(&frame(BROADCAST, source, 60, 1));
    }

    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut frame = vec![0; 2048];
        let octets = uninterrupted(|| self.data.recv(&mut frame)).expect("a frame");
        frame.truncate(octets);
        frame
    }

    /// Waits until the switch hangs up.
    pub(crate) fn wait_for_end(&mut self) {
        assert_eq!(uninterrupted(|| self.control.read(&mut [0; 8])).expect("the end"), 0);
    }
}

/// A time-out makes a call end at any signal.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn address(path: &Path) -> Vec<u8> {
    let mut address = u16::to_ne_bytes(1).to_vec();
    address.extend_from_slice(path.as_os_str().as_encoded_bytes());
    address.resize(110, 0);
    address
}
