//! Dialling a QEMU that listens (`listen=`, `server=on`), and again when it goes.

use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::net::{TcpStream, UnixStream};

use super::StreamSocket;
use super::listener::resolve;
use crate::config::{Remote, UnixName};

/// Back-off between two attempts: from the first value, doubled up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long a connection must have lived for the next attempt to be quick again.
const LASTED: Duration = Duration::from_secs(5);

/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What a dialler is doing.
#[derive(Debug)]
pub enum Dialling {
    /// Nothing until then.
    Idle {
        /// The next attempt.
        until: Instant,
    },
    /// An attempt is under way.
    Connecting {
        /// The socket.
        socket: StreamSocket,
        /// When it is given up.
        until: Instant,
        /// Has the poll told of it?
        told: bool,
    },
    /// There is a connection.
    Connected {
        /// Since when.
        since: Instant,
    },
}

/// Keeps one connection to a peer that listens.
#[derive(Debug)]
pub struct Dialer {
    places: Places,
    next_place: usize,
    retry: Duration,
    /// What it is doing.
    pub state: Dialling,
}

#[derive(Debug)]
enum Places {
    Unix(std::os::unix::net::SocketAddr),
    Tcp(Vec<SocketAddr>),
}

impl Dialer {
    /// A dialler of `remote`, whose first attempt is due at `now`.
    ///
    /// # Errors
    ///
    /// When the host is unknown.
    pub fn new(remote: &Remote, now: Instant) -> Result<Self> {
        let places = match remote {
            Remote::Unix(UnixName::Path(path)) => {
                Places::Unix(std::os::unix::net::SocketAddr::from_pathname(path)?)
            }
            Remote::Unix(UnixName::Abstract(name)) => {
                Places::Unix(std::os::unix::net::SocketAddr::from_abstract_name(name)?)
            }
            Remote::Tcp(address) => Places::Tcp(resolve(address)?),
        };
        Ok(Self { places, next_place: 0, retry: RETRY.0, state: Dialling::Idle { until: now } })
    }

    /// When it wants to be looked at again, whatever happens.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            Dialling::Idle { until } | Dialling::Connecting { until, .. } => Some(until),
            Dialling::Connected { .. } => None,
        }
    }

    /// The poll tells of the attempt under way.
    pub fn note(&mut self) {
        if let Dialling::Connecting { told, .. } = &mut self.state {
            *told = true;
        }
    }

    /// Begins an attempt. The socket is to be asked whether it is connected: a unix socket is at
    /// once.
    ///
    /// # Errors
    ///
    /// The system's; the attempt has failed.
    pub fn connect(&mut self, now: Instant) -> io::Result<(StreamSocket, Instant)> {
        let socket = match &self.places {
            Places::Unix(address) => StreamSocket::Unix(UnixStream::connect_addr(address)?),
            Places::Tcp(addresses) => {
                let address = addresses[self.next_place % addresses.len()];
                self.next_place += 1;
                StreamSocket::Tcp(TcpStream::connect(address)?)
            }
        };
        Ok((socket, now + ATTEMPT))
    }

    /// The connection, or the attempt, is over: says when the next one is due, later each time
    /// unless the connection had lasted.
    pub fn rest(&mut self, now: Instant) {
        if let Dialling::Connected { since } = self.state
            && now.saturating_duration_since(since) >= LASTED
        {
            self.retry = RETRY.0;
        }
        self.state = Dialling::Idle { until: now + self.retry };
        self.retry = RETRY.1.min(self.retry * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backs_off_until_a_connection_lasts() {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary start of virtual time")]
        let mut now = Instant::now();
        let mut dialer = Dialer::new(&Remote::Unix(UnixName::Abstract("qhub-none".into())), now).unwrap();
        let mut rests = Vec::new();
        for _ in 0..8 {
            dialer.rest(now);
            let next = dialer.deadline().unwrap();
            rests.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(rests, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        dialer.state = Dialling::Connected { since: now };
        assert_eq!(dialer.deadline(), None);
        dialer.rest(now + LASTED - Duration::from_nanos(1));
        assert_eq!(dialer.deadline(), Some(now + LASTED - Duration::from_nanos(1) + RETRY.1));
        dialer.state = Dialling::Connected { since: now };
        dialer.rest(now + LASTED);
        assert_eq!(dialer.deadline(), Some(now + LASTED + RETRY.0));
    }
}
