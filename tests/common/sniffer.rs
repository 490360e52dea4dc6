//! What passes an interface, in and out: a packet socket of the test's.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::bind;
use socket2::{Domain, Protocol, Socket, Type};

use super::net::Namespace;
use super::wait::{LIMIT, wait_for};
use super::wire::Station;

/// Longer than any frame.
const ROOM: usize = 1 << 17;

/// An interface, seen and used from below.
pub(crate) struct Sniffer(Socket);

impl Sniffer {
    pub(crate) fn new(namespace: &Namespace, interface: &str) -> Self {
        namespace.within(|| {
            let every_type = i32::from(u16::try_from(libc::ETH_P_ALL).expect("two octets").to_be());
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every_type)));
            let socket = socket.expect("root may");
            socket.set_recv_buffer_size(4 << 20).expect("an option of a socket");
            let mut all = getifaddrs().expect("the interfaces");
            let address = all.find_map(|found| {
                let address = found.address.filter(|_| found.interface_name == interface)?;
                address.as_link_addr().copied()
            });
            // It has no type of its own, so that of the socket stays.
            bind(socket.as_raw_fd(), &address.expect("an interface of this name")).expect("root may");
            let mut sniffer = Self(socket);
            // What came by others before.
            while sniffer.try_receive(Duration::from_millis(1)).is_some() {}
            sniffer
        })
    }
}

impl Station for Sniffer {
    fn send(&mut self, frame: &[u8]) {
        self.0.write_all(frame).expect("the interface takes a frame");
    }

    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(limit)).expect("a time-out can be set");
        let mut frame = vec![0; ROOM];
        match self.0.read(&mut frame) {
            Ok(length) => {
                frame.truncate(length);
                Some(frame)
            }
            // It tells once that the interface went down.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NetworkDown) => None,
            Err(error) => panic!("listen to an interface: {error}"),
        }
    }
}

impl Sniffer {
    /// Sends a frame if the interface takes it now.
    pub(crate) fn try_send(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.0.write_all(frame)
    }
}

/// Collects the frames that arrive at a station.
pub(crate) struct Collector {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Collector {
    pub(crate) fn start(mut station: impl Station + Send + 'static) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&done);
        let thread = thread::spawn(move || {
            let mut frames = Vec::new();
            loop {
                match station.try_receive(Duration::from_millis(50)) {
                    Some(frame) => frames.push(frame),
                    None if until.load(Ordering::Relaxed) => return frames,
                    None => {}
                }
            }
        });
        Self { done, thread }
    }

    /// All that arrived.
    pub(crate) fn stop(self) -> Vec<Vec<u8>> {
        self.done.store(true, Ordering::Relaxed);
        wait_for("what arrives to end", LIMIT, || self.thread.is_finished().then_some(()));
        self.thread.join().expect("it has received")
    }
}
