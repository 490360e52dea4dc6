//! Dialling a QEMU that listens (`listen=`, `server=on`) or joining a VDE switch, and again when it goes.

use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use super::listener::resolve;
use super::{Joining, Link, Peer, StreamLink, StreamSocket};
use crate::config::{Remote, UnixName, VdePlace};

/// Back-off between two attempts: from the first value, doubled up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long a connection must have lived for the next attempt to be quick again.
const LASTED: Duration = Duration::from_secs(5);

/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What a dialler is doing.
#[derive(Debug)]
enum State {
    /// Nothing until then.
    Idle { until: Instant },
    /// An attempt is under way until then at the latest; the poll may have told of it.
    Connecting { attempt: Attempt, until: Instant, told: bool },
    /// There is a connection since then.
    Connected { since: Instant },
}

/// Keeps one connection to a peer that listens.
#[derive(Debug)]
pub struct Dialer {
    places: Places,
    next_place: usize,
    retry: Duration,
    state: State,
}

#[derive(Debug)]
enum Places {
    Unix(std::os::unix::net::SocketAddr),
    Tcp(Vec<SocketAddr>),
    Vde(VdePlace),
}

/// A connection that is being made.
#[derive(Debug)]
enum Attempt {
    Stream(StreamSocket),
    Vde(Box<Joining>),
}

/// A connection that was made.
#[derive(Debug)]
pub struct Dialled {
    /// The link over it.
    pub link: Box<dyn Link>,
    /// Who is at its other end.
    pub peer: Peer,
    /// Does it stay on this host?
    pub is_local: bool,
    /// The folder of a VDE switch, by its device and inode.
    pub folder: Option<(u64, u64)>,
}

impl Attempt {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Stream(socket) => socket.register(registry, token, Interest::WRITABLE),
            Self::Vde(joining) => joining.register(registry, token),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Stream(socket) => socket.deregister(registry),
            Self::Vde(joining) => joining.deregister(registry),
        }
    }

    /// Is there a connection now? An error is the end of the attempt.
    fn is_made(&mut self) -> io::Result<bool> {
        match self {
            Self::Stream(socket) => {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                if socket.is_connected_to_itself() {
                    return Err(io::Error::other("nothing but ourselves answers there"));
                }
                Ok(socket.is_connected())
            }
            Self::Vde(joining) => joining.is_answered(),
        }
    }

    /// Why it has taken too long.
    fn timed_out(&self) -> io::Error {
        match self {
            Self::Stream(_) => io::ErrorKind::TimedOut.into(),
            Self::Vde(_) => {
                io::Error::other("the switch does not answer; it may have no such port, or none left")
            }
        }
    }

    fn finish(self) -> io::Result<Dialled> {
        Ok(match self {
            Self::Stream(socket) => {
                let (peer, is_local) = (socket.peer(), socket.is_local());
                Dialled { link: Box::new(StreamLink::dialled(socket)?), peer, is_local, folder: None }
            }
            Self::Vde(joining) => {
                let (peer, folder) = (joining.peer(), Some(joining.folder()));
                Dialled { link: Box::new(joining.finish()?), peer, is_local: true, folder }
            }
        })
    }
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
            Remote::Vde(place) => Places::Vde(place.clone()),
        };
        Ok(Self { places, next_place: 0, retry: RETRY.0, state: State::Idle { until: now } })
    }

    /// When it wants to be looked at again, whatever happens.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Idle { until } | State::Connecting { until, .. } => Some(until),
            State::Connected { .. } => None,
        }
    }

    /// Has each address of the peer been tried?
    pub fn has_tried_all(&self) -> bool {
        match &self.places {
            Places::Unix(_) | Places::Vde(_) => true,
            Places::Tcp(addresses) => self.next_place >= addresses.len(),
        }
    }

    /// The poll tells of the attempt under way.
    pub fn note(&mut self) {
        if let State::Connecting { told, .. } = &mut self.state {
            *told = true;
        }
    }

    /// Goes one step on: begins an attempt when it is due, or looks how the one under way went.
    /// Returns the connection once it is made; it is then no longer polled.
    ///
    /// # Errors
    ///
    /// Why the attempt has failed; [`Self::rest`] is to be called.
    pub fn advance(
        &mut self,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> io::Result<Option<Dialled>> {
        let (mut attempt, until, is_polled) =
            match std::mem::replace(&mut self.state, State::Idle { until: now }) {
                State::Idle { until } if now >= until => (self.begin()?, now + ATTEMPT, false),
                State::Connecting { attempt, until, told } if told || now >= until => (attempt, until, true),
                state @ (State::Idle { .. } | State::Connecting { .. } | State::Connected { .. }) => {
                    self.state = state;
                    return Ok(None);
                }
            };
        if attempt.is_made()? {
            if is_polled {
                attempt.deregister(registry)?;
            }
            return attempt.finish().map(Some);
        }
        if now >= until {
            return Err(attempt.timed_out());
        }
        if !is_polled {
            attempt.register(registry, token)?;
        }
        self.state = State::Connecting { attempt, until, told: false };
        Ok(None)
    }

    /// A unix socket is connected at once, anything else some time later.
    fn begin(&mut self) -> io::Result<Attempt> {
        Ok(Attempt::Stream(match &self.places {
            Places::Vde(place) => return Ok(Attempt::Vde(Box::new(Joining::begin(place)?))),
            Places::Unix(address) => StreamSocket::Unix(UnixStream::connect_addr(address)?),
            Places::Tcp(addresses) => {
                let address = addresses[self.next_place % addresses.len()];
                self.next_place += 1;
                StreamSocket::Tcp(TcpStream::connect(address)?)
            }
        }))
    }

    /// The connection is in use.
    pub fn succeeded(&mut self, now: Instant) {
        self.state = State::Connected { since: now };
    }

    /// The connection, or the attempt, is over: says when the next one is due, later each time
    /// unless the connection had lasted.
    pub fn rest(&mut self, now: Instant) {
        if let State::Connected { since } = self.state
            && now.saturating_duration_since(since) >= LASTED
        {
            self.retry = RETRY.0;
        }
        self.state = State::Idle { until: now + self.retry };
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
        dialer.succeeded(now);
        assert_eq!(dialer.deadline(), None);
        dialer.rest(now + LASTED - Duration::from_nanos(1));
        assert_eq!(dialer.deadline(), Some(now + LASTED - Duration::from_nanos(1) + RETRY.1));
        dialer.succeeded(now);
        dialer.rest(now + LASTED);
        assert_eq!(dialer.deadline(), Some(now + LASTED + RETRY.0));
    }

    #[test]
    fn each_address_is_tried_before_all_are() {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary start of virtual time")]
        let now = Instant::now();
        let poll = mio::Poll::new().unwrap();
        let mut dialer = Dialer::new(&Remote::Unix(UnixName::Abstract("qhub-none".into())), now).unwrap();
        assert!(dialer.has_tried_all(), "there is one");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        dialer.places = Places::Tcp(vec![nowhere, nowhere]);
        for tried_all in [false, true] {
            assert!(dialer.advance(poll.registry(), Token(0), now).is_err());
            assert_eq!(dialer.has_tried_all(), tried_all);
        }
    }
}
