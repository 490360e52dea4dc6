//! A session at the console: commands in, answers and events out.
//!
//! It never makes the loop wait, and holds no more than the answer to one command: the next one is not done, and
//! nothing is received, while anything waits to be read. Events that find too much waiting are counted, and the
//! count is told.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;

use super::answer::{self, Answer, BANNER, GOODBYE, PROMPT};
use super::command::Command;
use super::events::{self, Event, Subscriptions};
use super::execute::Switch;
use super::input::{Input, Line};
use super::script::{Script, ScriptLine};

/// Octets received at once.
const CHUNK: usize = 1024;

/// Octets that may wait when an event is added.
const EVENTS_MAX: usize = 1024 * 1024;

/// How long somebody at the socket is silent who has said all of a line: vdeterm ends none.
const SILENCE: Duration = Duration::from_millis(200);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Somebody at the socket for consoles.
    Socket,
    /// Who started the switch, at a terminal.
    Terminal,
    /// Who started the switch, a program.
    Pipe,
}

/// What a session wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To hear from its peer.
    Wait,
    /// To go on in the next turn.
    GoOn,
    /// To be closed.
    Close,
    /// To be closed, and the switch with it.
    Shutdown,
}

/// What a session has done.
enum Step {
    Done,
    Received,
    Nothing,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    stream: UnixStream,
    place: Place,
    input: Input,
    /// When it was last heard.
    heard: Instant,
    /// What is still to be written.
    output: Vec<u8>,
    /// Has its peer said the last word?
    is_at_end: bool,
    script: Option<Script>,
    subscriptions: Subscriptions,
    /// Events that wait for the end of an answer.
    delayed: String,
    /// Events that there was no room for, and that it was not told of yet.
    lost: u64,
    /// Once everything is written.
    end: Option<Wish>,
}

impl Session {
    /// A session on `stream`, which the poll tells of as `token`.
    ///
    /// # Errors
    ///
    /// When it can't be polled.
    pub(super) fn new(
        mut stream: UnixStream,
        place: Place,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> io::Result<Self> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut session = Self {
            stream,
            place,
            input: Input::default(),
            heard: now,
            output: Vec::new(),
            is_at_end: false,
            script: None,
            subscriptions: Subscriptions::default(),
            delayed: String::new(),
            lost: 0,
            end: None,
        };
        if place == Place::Socket {
            session.say(BANNER);
            session.prompt();
        }
        Ok(session)
    }

    /// Who is at the other end.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// What it wants to be told of.
    pub(super) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// When it is to be served, whatever the poll says.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let is_unfinished = self.place == Place::Socket && self.output.is_empty() && self.input.has_rest();
        is_unfinished.then(|| self.heard + SILENCE)
    }

    /// Does one thing that its peer asks for, if this reads the answers.
    pub(super) fn serve(&mut self, switch: &mut Switch<'_>) -> Wish {
        loop {
            if !self.flush() {
                return Wish::Close;
            }
            if !self.output.is_empty() {
                return Wish::Wait;
            }
            if let Some(end) = self.end {
                return end;
            }
            if self.lost > 0 && self.script.is_none() {
                let lost = std::mem::take(&mut self.lost);
                self.say(&events::lost(lost));
                continue;
            }
            match self.advance(switch) {
                Step::Done => {
                    self.flush();
                    return Wish::GoOn;
                }
                Step::Received => {}
                Step::Nothing => return Wish::Wait,
            }
        }
    }

    /// Is there something to tell that has found no room before?
    pub(super) fn is_due(&self) -> bool {
        self.lost > 0 && self.output.is_empty() && self.script.is_none()
    }

    /// Tells what has happened, if it wants to know. What can't be written waits.
    pub(super) fn tell(&mut self, events: &[Event]) {
        for event in events {
            if !self.subscriptions.have(event) {
                continue;
            }
            if self.lost > 0 || self.output.len() + self.delayed.len() >= EVENTS_MAX {
                self.lost += 1;
            } else {
                self.delayed.push_str(&event.render());
            }
        }
        self.say_delayed();
        // A peer that is gone is met when it is served.
        self.flush();
    }

    /// One step: a command, or something received.
    fn advance(&mut self, switch: &mut Switch<'_>) -> Step {
        if self.script.is_some() {
            self.follow(switch);
            return Step::Done;
        }
        if let Some(line) = self.input.next() {
            self.obey(line, switch);
            return Step::Done;
        }
        if self.is_at_end {
            match self.input.last() {
                Some(line) => self.obey(line, switch),
                None => self.end = Some(Wish::Close),
            }
            return Step::Done;
        }
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.is_at_end = true,
            Ok(octets) => {
                self.heard = switch.now;
                self.input.push(&chunk[..octets]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.break_silence(switch),
            Err(_) => self.end = Some(Wish::Close),
        }
        Step::Received
    }

    /// Does what a line without an end says, if nothing more seems to come.
    fn break_silence(&mut self, switch: &mut Switch<'_>) -> Step {
        if self.deadline().is_none_or(|deadline| switch.now < deadline) {
            return Step::Nothing;
        }
        if let Some(line) = self.input.last() {
            self.obey(line, switch);
        }
        Step::Done
    }

    fn obey(&mut self, line: Line, switch: &mut Switch<'_>) {
        match line {
            Line::Whole(line) if line.is_empty() || line.starts_with('#') => {}
            Line::Whole(line) => match Command::parse(&line) {
                Ok(command) => self.execute(&command, switch),
                Err(errno) => self.answer(&Answer::plain(Err(errno))),
            },
            Line::TooLong => self.answer(&Answer::plain(Err(Errno::E2BIG))),
        }
        if self.script.is_none() && !matches!(self.end, Some(Wish::Shutdown)) {
            self.prompt();
        }
    }

    fn execute(&mut self, command: &Command, switch: &mut Switch<'_>) {
        match command {
            // Who started the switch has no other session to go to.
            Command::Logout if self.place != Place::Socket => {}
            Command::Logout => self.leave(Wish::Close),
            Command::Shutdown => self.leave(Wish::Shutdown),
            Command::Load(path) => match Script::load(path) {
                Ok(script) => {
                    self.script = Some(script);
                    self.say(answer::begin_data());
                }
                Err(errno) => self.answer(&Answer::plain(Err(errno))),
            },
            Command::Switch(command) => {
                let answer = switch.execute(command, Some(&mut self.subscriptions));
                self.answer(&answer);
            }
        }
    }

    fn leave(&mut self, end: Wish) {
        if self.place == Place::Socket {
            self.say(GOODBYE);
        }
        self.end = Some(end);
    }

    /// The next command of a file. Its answer is data of the answer to `load`, and moved in so that none of it is
    /// taken for the end of these.
    fn follow(&mut self, switch: &mut Switch<'_>) {
        let step = self.script.as_mut().map_or(Ok(None), Script::next);
        match step {
            Ok(Some(step)) => {
                let transcript = self.take(&step, switch);
                self.say(&transcript);
            }
            Ok(None) | Err(_) => {
                self.script = None;
                self.say(&answer::end_data(step.map(|_| ())));
                self.prompt();
                self.say_delayed();
            }
        }
    }

    fn take(&mut self, ScriptLine { place, line }: &ScriptLine, switch: &mut Switch<'_>) -> String {
        let place = answer::one_line(place);
        let command = match Command::parse(line) {
            Ok(command) => command,
            // Whoever may load any file may not therefore read it.
            Err(errno) => return format!("vde[{place}]:\n {}", Answer::plain(Err(errno)).render()),
        };
        let answer = match command {
            Command::Load(path) => {
                Answer::plain(self.script.as_mut().map_or(Ok(()), |script| script.descend(&path)))
            }
            Command::Shutdown => {
                self.end = Some(Wish::Shutdown);
                Answer::plain(Ok(()))
            }
            Command::Logout => Answer::plain(Err(Errno::ENOSYS)),
            Command::Switch(command) => switch.execute(&command, Some(&mut self.subscriptions)),
        };
        transcript(&place, line, &answer.render())
    }

    fn answer(&mut self, answer: &Answer) {
        self.say(&answer.render());
    }

    fn prompt(&mut self) {
        let is_left = self.end == Some(Wish::Close) && self.place == Place::Socket;
        if self.place != Place::Pipe && !is_left {
            self.say(PROMPT);
        }
    }

    /// The answer to `load` comes bit by bit, and events are none of it.
    fn say_delayed(&mut self) {
        if self.script.is_none() {
            let delayed = std::mem::take(&mut self.delayed);
            self.say(&delayed);
        }
    }

    fn say(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
    }

    /// Writes what there is; false when nobody will read it any more.
    pub(super) fn flush(&mut self) -> bool {
        let mut written = 0;
        let is_read = loop {
            if written == self.output.len() {
                break true;
            }
            match self.stream.write(&self.output[written..]) {
                Ok(0) => break false,
                Ok(octets) => written += octets,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
        self.output.drain(..written);
        is_read
    }
}

/// A command of a file and its answer, none of whose lines begins as those of the console do.
fn transcript(place: &str, line: &str, answer: &str) -> String {
    let mut text = format!("vde[{place}]: {}\n", answer::one_line(line));
    for line in answer.lines() {
        text.push(' ');
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::events::station_changes;
    use super::*;
    use crate::hub::Station;
    use hub_protocol::mac::Mac;
    use std::io::BufRead;

    /// Somebody who reads, but is always behind.
    #[test]
    fn events_are_lost_only_where_too_many_wait() {
        let poll = mio::Poll::new().unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = UnixStream::from_std(ours);
        let now = crate::hub::now();
        let mut session = Session::new(stream, Place::Pipe, poll.registry(), Token(0), now).unwrap();
        session.subscriptions.add("").unwrap();
        let station = Station { vid: 0, mac: Mac([2; 6]), port: 1, age: Duration::ZERO };
        let event = station_changes(&[], &[station]);
        let mut waiting = 0_usize;
        while session.output.len() < EVENTS_MAX / 2 {
            session.tell(&event);
            waiting += 1;
        }
        let mut theirs = io::BufReader::new(theirs);
        let mut line = String::new();
        for _ in 0..4 * waiting {
            session.tell(&event);
            line.clear();
            theirs.read_line(&mut line).unwrap();
            assert_eq!(line, "3011 hash/+ 02:02:02:02:02:02 VLAN 00:00 Port 1\n");
            assert!(!session.output.is_empty());
        }
        assert_eq!(session.lost, 0);
        while session.lost < 3 {
            session.tell(&event);
        }
        assert!(session.output.len() < EVENTS_MAX + line.len());
    }
}
