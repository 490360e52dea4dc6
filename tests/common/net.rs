//! Networks for tests: ports and groups that nobody else uses, and hosts of their own.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::require::require;
use super::wait::{LIMIT, wait_for};

/// Ports that tests choose: below those that the system gives to sockets without one.
const CHOSEN: Range<u16> = 10_000..32_768;

/// A UDP port that nobody has, on any address, and that is given out once.
pub(crate) fn free_udp_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Another test process begins elsewhere.
    let start = process::id().wrapping_mul(97);
    loop {
        let turn = u32::from(TAKEN.fetch_add(1, Ordering::Relaxed));
        let offset = start.wrapping_add(turn) % u32::from(CHOSEN.end - CHOSEN.start);
        let port = CHOSEN.start + u16::try_from(offset).expect("it is below the length");
        if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// A multicast group with a port of its own: `239.77.x.y:port`.
pub(crate) fn free_group() -> (Ipv4Addr, u16) {
    let port = free_udp_port();
    let [high, low] = port.to_be_bytes();
    (Ipv4Addr::new(239, 77, high, low), port)
}

/// Can tests make hosts of their own? Says so if not.
pub(crate) fn have_namespaces() -> bool {
    let attempt = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok());
    let missing = match attempt.join() {
        Ok(true) => vec![],
        _ => vec!["/proc/the-right-to-make-network-namespaces".into()],
    };
    require("root", &["setpriv", "ip"], &missing)
}

/// A network of its own, as another host has it: at first nothing but a loopback interface that is down. It has no name
/// and is gone with its last process and socket, whatever becomes of the test.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        let _home = Return(current());
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        Self(current())
    }

    /// Two that a cable joins: `cable` is the interface at either end, with the addresses 10.77.0.1/24 and fd77::1/64 here
    /// and 10.77.0.2/24 and fd77::2/64 there.
    pub(crate) fn joined() -> [Self; 2] {
        let ends = [Self::new(), Self::new()];
        ends[0].ip(&format!("link add cable type veth peer name cable netns {}", ends[1].path()));
        for (end, number) in ends.iter().zip(1..) {
            // Its own link-local address would have to be tried for a second first.
            end.ip("link set cable addrgenmode none up");
            end.ip(&format!("addr add 10.77.0.{number}/24 dev cable"));
            end.ip(&format!("addr add fd77::{number}/64 dev cable nodad"));
        }
        let [one, other] = [1, 2].map(|number| format!("10.77.0.{number}:9"));
        let [one, other] =
            [(&ends[0], one), (&ends[1], other)].map(|(end, address)| end.within(|| udp_socket(&address)));
        // An interface drops what it is given until it has noticed its cable.
        arrives(&one, &other);
        arrives(&other, &one);
        ends
    }

    /// Where other processes find it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// Runs `ip`, which has to succeed.
    pub(crate) fn ip(&self, arguments: &str) {
        let output = self.within(|| Command::new("ip").args(arguments.split(' ')).output().expect("run ip"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments} said {complaint}");
    }

    /// What a program prints there; it has to succeed.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.within(|| Command::new(program).args(arguments).output().expect("run a program"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?} said {complaint}");
        output.stdout
    }

    /// Does `work` there: what it starts and opens stays there.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _home = Return(current());
        enter(&self.0);
        work()
    }
}

fn udp_socket(address: &str) -> UdpSocket {
    UdpSocket::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"))
}

/// Returns once datagrams pass from `one` to `other`.
fn arrives(one: &UdpSocket, other: &UdpSocket) {
    other.set_nonblocking(true).expect("an option of a socket");
    let to = other.local_addr().expect("its address");
    wait_for("a datagram to pass through the cable", LIMIT, || {
        one.send_to(b"probe", to).expect("a datagram is sent, or lost");
        other.recv(&mut [0; 8]).ok()
    });
}

/// Brings the thread back to where it was.
struct Return(File);

impl Drop for Return {
    fn drop(&mut self) {
        enter(&self.0);
    }
}

fn current() -> File {
    File::open("/proc/thread-self/ns/net").expect("the namespace of this thread")
}

fn enter(namespace: impl AsFd) {
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may change the network namespace");
}
