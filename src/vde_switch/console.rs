//! All sessions at the console: that of who started the switch, and those at its socket.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::{debug, info, warn};
use mio::net::UnixStream;
use mio::{Registry, Token};
use nix::errno::Errno;

use super::answer::Answer;
use super::execute::{Facts, Switch};
use super::session::{Place, Session, Wish};
use super::stdio::{Stdio, Written};
use super::watch::Watch;
use crate::config::UnixName;
use crate::hub::{self, Hub};
use crate::link::{Listener, StreamSocket, find_group};
use crate::port::QUIET;

/// Sessions at the socket, at a time.
const SESSIONS_MAX: usize = 16;

/// Sessions served in one turn, and how long that may take before the next one has to wait: frames come first.
const SERVED: usize = 4;
const SERVING: Duration = Duration::from_millis(1);

/// Sessions accepted in one turn.
const WELCOMES: usize = 16;

/// How soon the socket is tried again that could not accept.
const STARVED: Duration = Duration::from_millis(100);

/// The place of the session of who started the switch.
const STDIO: usize = 0;

/// The console of a switch.
#[derive(Debug)]
pub(super) struct Console {
    facts: Facts,
    /// The poll's token for the socket; those for sessions are behind it.
    token: usize,
    entrance: Option<Entrance>,
    /// Of stdout.
    written: Option<Written>,
    sessions: BTreeMap<usize, Session>,
    /// Sessions that may have something to do, in their order.
    ready: VecDeque<usize>,
    watch: Watch,
}

/// The socket that sessions come by.
#[derive(Debug)]
struct Entrance {
    listener: Listener,
    is_ready: bool,
    /// It could not accept; when to try again.
    starved: Option<Instant>,
    /// When it was last told that it could not, and that somebody was turned away.
    told: [Option<Instant>; 2],
}

/// What is wrong at the socket.
#[derive(Clone, Copy, Debug)]
enum Complaint {
    Starved,
    Full,
}

impl Console {
    /// A console without sessions, whose sources have tokens from `token` on.
    pub(super) fn new(facts: Facts, token: Token) -> Self {
        Self {
            facts,
            token: token.0,
            entrance: None,
            written: None,
            sessions: BTreeMap::new(),
            ready: VecDeque::new(),
            watch: Watch::default(),
        }
    }

    /// What is known of the switch.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Serves the socket `path`.
    ///
    /// # Errors
    ///
    /// When something lives there, or the folder refuses; says what to do.
    pub(super) fn listen(
        &mut self,
        path: &Path,
        mode: u32,
        group: Option<&str>,
        registry: &Registry,
    ) -> Result<()> {
        let group = group.map(find_group).transpose().context("--mgmtgroup")?;
        let mut listener = Listener::unix(&UnixName::Path(path.to_owned()), 0o600, true)?;
        if let Listener::Unix { file: Some(file), .. } = &mut listener {
            file.give_to(group, mode).with_context(|| format!("give {} to its group", path.display()))?;
        }
        listener.register(registry, Token(self.token))?;
        self.entrance = Some(Entrance { listener, is_ready: true, starved: None, told: [None; 2] });
        Ok(())
    }

    /// Begins the session on stdin and stdout.
    ///
    /// # Errors
    ///
    /// When it can't be polled.
    pub(super) fn converse(&mut self, stdio: Stdio, registry: &Registry, now: Instant) -> io::Result<()> {
        self.written = Some(stdio.written);
        self.admit(STDIO, UnixStream::from_std(stdio.stream), stdio.place, registry, now)
    }

    /// The poll tells of `token`.
    pub(super) fn note(&mut self, token: Token) {
        match token.0.checked_sub(self.token) {
            Some(0) => self.entrance.iter_mut().for_each(|entrance| entrance.is_ready = true),
            Some(place @ 1..) => self.make_ready(place - 1),
            None => {}
        }
    }

    /// When it wants to be served: at once, at some time, or never.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let ready = (!self.ready.is_empty()).then_some(now);
        let entrance = self.entrance.as_ref().filter(|entrance| entrance.is_ready);
        let entrance = entrance.map(|entrance| entrance.starved.unwrap_or(now));
        let session = self.sessions.values().filter_map(Session::deadline).min();
        [ready, entrance, self.watch.deadline(), session].into_iter().flatten().min()
    }

    /// Does what sessions ask for. True when the switch is to end.
    pub(super) fn serve(&mut self, hub: &mut Hub, now: Instant) -> bool {
        self.accept(hub.registry(), now);
        self.find_silent(now);
        let mut is_ending = false;
        let begin = hub::now();
        for _ in 0..self.ready.len().min(SERVED) {
            if hub::now().saturating_duration_since(begin) > SERVING {
                break;
            }
            let Some(place) = self.ready.pop_front() else { break };
            let Some(session) = self.sessions.get_mut(&place) else { continue };
            let mut switch = Switch { hub: &mut *hub, facts: &self.facts, now };
            match session.serve(&mut switch) {
                Wish::Wait => {}
                Wish::GoOn => self.make_ready(place),
                Wish::Close => is_ending |= self.close(place),
                Wish::Shutdown => {
                    info!("a console asks for the end");
                    self.close(place);
                    is_ending = true;
                }
            }
        }
        let wanted = self.sessions.values().map(Session::subscriptions);
        let (ports, stations) = wanted.fold((false, false), |(ports, stations), wanted| {
            (ports | wanted.are_of_ports(), stations | wanted.are_of_stations())
        });
        self.watch.adjust(hub, ports, stations, now);
        is_ending
    }

    /// Tells sessions what has happened, if they want to know.
    pub(super) fn tell(&mut self, hub: &Hub, now: Instant) {
        let events = self.watch.compare(hub, now);
        if events.is_empty() {
            return;
        }
        let mut due = Vec::new();
        for (&place, session) in &mut self.sessions {
            session.tell(&events);
            due.extend(session.is_due().then_some(place));
        }
        due.into_iter().for_each(|place| self.make_ready(place));
    }

    /// The end: writes what can still be written.
    pub(super) fn finish(mut self) {
        self.entrance = None;
        self.sessions.values_mut().for_each(|session| {
            session.flush();
        });
        self.sessions.clear();
        if let Some(written) = self.written.take() {
            written.wait();
        }
    }

    fn make_ready(&mut self, place: usize) {
        if !self.ready.contains(&place) {
            self.ready.push_back(place);
        }
    }

    fn find_silent(&mut self, now: Instant) {
        let is_due = |session: &Session| session.deadline().is_some_and(|deadline| now >= deadline);
        let due: Vec<usize> =
            self.sessions.iter().filter(|(_, session)| is_due(session)).map(|(&place, _)| place).collect();
        due.into_iter().for_each(|place| self.make_ready(place));
    }

    fn admit(
        &mut self,
        at: usize,
        stream: UnixStream,
        place: Place,
        registry: &Registry,
        now: Instant,
    ) -> io::Result<()> {
        let session = Session::new(stream, place, registry, Token(self.token + 1 + at), now)?;
        self.sessions.insert(at, session);
        self.make_ready(at);
        Ok(())
    }

    fn accept(&mut self, registry: &Registry, now: Instant) {
        for _ in 0..WELCOMES {
            match self.entrance.as_mut().and_then(|entrance| entrance.accept(now)) {
                Some(Ok(StreamSocket::Unix(stream))) => self.receive(stream, registry, now),
                Some(Ok(StreamSocket::Tcp(_))) => {}
                Some(Err(error)) => {
                    self.warn(
                        Complaint::Starved,
                        &format!("the console can't accept a session: {error}"),
                        now,
                    );
                }
                None => break,
            }
        }
    }

    fn receive(&mut self, mut stream: UnixStream, registry: &Registry, now: Instant) {
        let free = (STDIO + 1..=SESSIONS_MAX).find(|place| !self.sessions.contains_key(place));
        let admitted = match free {
            Some(place) => self.admit(place, stream, Place::Socket, registry, now),
            None => {
                let what = format!("all {SESSIONS_MAX} console sessions are in use; one more is turned away");
                self.warn(Complaint::Full, &what, now);
                // It is a few octets on an empty socket, or nobody is there.
                stream.write_all(Answer::plain(Err(Errno::EBUSY)).render().as_bytes())
            }
        };
        if let Err(error) = admitted {
            debug!("a console session has ended at once: {error}");
        }
    }

    /// Warns, but not again and again: anybody may come any time.
    fn warn(&mut self, complaint: Complaint, what: &str, now: Instant) {
        let Some(told) = self.entrance.as_mut().map(|entrance| &mut entrance.told[complaint as usize]) else {
            return;
        };
        if told.is_none_or(|told| now.saturating_duration_since(told) >= QUIET) {
            *told = Some(now);
            warn!("{what}");
        } else {
            debug!("{what}");
        }
    }

    /// Closes a session. True when it is the one whose end is that of the switch.
    fn close(&mut self, place: usize) -> bool {
        let Some(session) = self.sessions.remove(&place) else { return false };
        let is_own = session.place() != Place::Socket;
        if is_own {
            info!("stdin has ended");
        }
        is_own
    }
}

impl Entrance {
    /// The next one who comes, if there is one now.
    fn accept(&mut self, now: Instant) -> Option<io::Result<StreamSocket>> {
        if !self.is_ready || self.starved.is_some_and(|until| now < until) {
            return None;
        }
        self.starved = None;
        match self.listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_ready = false;
                None
            }
            Err(error) => {
                self.starved = Some(now + STARVED);
                Some(Err(error))
            }
            accepted => Some(accepted),
        }
    }
}
