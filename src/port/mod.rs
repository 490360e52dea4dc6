//! A port: a link, what is known of its readiness, an egress queue, and counters.
//!
//! Readiness is remembered here, because the poll tells of each change once: it is cleared only by
//! a receive that drained the transport.

mod counters;
mod egress;
mod pause;
mod queue;
mod trouble;

use std::io;
use std::time::{Duration, Instant};

use hub_protocol::stream::{self, Cut};
use log::trace;
use mio::{Interest, Registry, Token};

use crate::batch::{ARENA, FrameBatch, Run, Taken};
use crate::bridge::PortSet;
use crate::config::{HIGH_MARK, HIGH_MARK_FRAMES, PortOptions};
use crate::discard::{DiscardReason, Drops};
use crate::link::{Link, Peer, Received};
pub use counters::Counters;
use pause::PauseBudget;
pub use pause::YOUNG;
use queue::EgressQueue;
pub use queue::{Memory, as_u64};
pub use trouble::REST;
use trouble::Trouble;

/// Least time between two warnings about the same thing.
pub const QUIET: Duration = Duration::from_secs(10);

/// A port of the hub.
#[derive(Debug)]
pub struct Port {
    /// Its name, unique as long as it lives.
    pub name: String,
    /// Who is at the other end.
    pub peer: Peer,
    /// The ports that its last batch was unicast to: what it may have to wait for.
    pub awaited: PortSet,
    /// Since when it waits.
    pub waiting: Option<Instant>,
    /// Octets of the first record of its last batch.
    pub usual_record: usize,
    /// When it was last read.
    pub heard: Instant,
    /// Is it on the hub's ready list?
    pub is_listed: bool,
    /// When somebody was last warned about it.
    pub warned: Option<Instant>,
    link: Box<dyn Link>,
    options: PortOptions,
    trouble: Trouble,
    /// Records that were received and are still to be relayed.
    held: Vec<u8>,
    readable: bool,
    read_closed: bool,
    polled_for_writing: bool,
    queue: EgressQueue,
    pause: PauseBudget,
    congested: Option<Instant>,
    counters: Counters,
    /// Why it sends no more. It is still read, until nothing is left.
    mute: Option<io::Error>,
    /// It was told to stop: the end of its stream is no news.
    is_stopped: bool,
    ended: Option<io::Error>,
}

impl Port {
    /// A port named `name` for `link`, polled for reading as `token` from now on.
    ///
    /// # Errors
    ///
    /// When the link can't be registered.
    pub fn new(
        name: String,
        mut link: Box<dyn Link>,
        peer: Peer,
        mut options: PortOptions,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> io::Result<Self> {
        link.register(registry, token, Interest::READABLE)?;
        options.max_frame = options.max_frame.min(link.max_frame());
        Ok(Self {
            name,
            peer,
            awaited: PortSet::default(),
            waiting: None,
            usual_record: ARENA,
            heard: now,
            is_listed: false,
            warned: None,
            link,
            trouble: Trouble::default(),
            held: Vec::new(),
            readable: false,
            read_closed: false,
            polled_for_writing: false,
            queue: EgressQueue::default(),
            pause: PauseBudget::new(options.pause),
            congested: None,
            counters: Counters::default(),
            mute: None,
            is_stopped: false,
            ended: None,
            options,
        })
    }

    /// A server heard its peer at `now`: it is there.
    pub fn note_heard(&mut self, now: Instant) {
        self.heard = now;
        self.trouble.wake();
    }

    /// The longest frame that may pass, in octets.
    pub fn max_frame(&self) -> usize {
        self.options.max_frame
    }

    /// Takes note of what the poll said about reading.
    pub fn note_readable(&mut self, closed: bool) {
        self.readable = true;
        if closed && !self.link.has_end() {
            self.end(io::Error::other("its socket was shut down"));
        }
        self.read_closed |= closed;
    }

    /// May there be something to receive?
    pub fn is_readable(&self) -> bool {
        !self.held.is_empty() || self.readable && self.ended.is_none()
    }

    /// Keeps `records`, the rest of a batch, for the next [`Self::receive`]; what is more than an
    /// arena is dropped, and counted in frames.
    pub fn hold(&mut self, records: &[u8], memory: &mut Memory) -> usize {
        let room = ARENA - self.held.len();
        let Cut { whole, .. } = stream::cut(records, room.min(records.len()));
        let (kept, lost) = records.split_at(whole);
        memory.take(kept.len());
        self.held.extend_from_slice(kept);
        let lost = Run::of(lost);
        self.count_received(lost.extent());
        self.count_dropped(DiscardReason::QueueFull, lost.frames);
        lost.frames
    }

    /// Octets that it holds.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Receives into `batch`; an error is the end of the port.
    pub fn receive(&mut self, batch: &mut FrameBatch, now: Instant, memory: &mut Memory) {
        if !self.held.is_empty() {
            batch.load(&self.held);
            memory.give(self.held.len());
            self.held = Vec::new();
            self.heard = now;
            return;
        }
        match self.link.receive(batch) {
            Ok(received) => {
                if received != Received::Nothing {
                    self.heard = now;
                }
                self.readable = received == Received::More || self.read_closed;
                if !self.readable
                    && let Some(error) = self.mute.take()
                {
                    self.end(error);
                }
            }
            Err(error) if self.is_stopped && error.kind() == io::ErrorKind::UnexpectedEof => {
                self.readable = false;
            }
            Err(error) => self.end(error),
        }
    }

    /// Counts frames that were received.
    pub fn count_received(&mut self, frames: Taken) {
        self.counters.rx_frames += as_u64(frames.frames);
        self.counters.rx_bytes += as_u64(frames.payload());
    }

    /// Counts frames that its peer sent and that were lost before they could be received; returns how
    /// many these are.
    pub fn count_lost(&mut self, lost: &Drops) -> u64 {
        let frames = lost.total();
        if frames > 0 {
            self.counters.rx_frames += frames;
            self.counters.drops.merge(lost);
        }
        frames
    }

    /// Counts `frames` that came in or were to leave here, and were dropped.
    pub fn count_dropped(&mut self, reason: DiscardReason, frames: usize) {
        if frames > 0 {
            trace!(port = self.name.as_str(), reason = reason.name(), frames; "dropped");
            self.counters.drops.add(reason, as_u64(frames));
        }
    }

    /// Polls for writing exactly while something waits to be written.
    pub fn update_poll(&mut self, registry: &Registry, token: Token) {
        let wanted = self.has_unsent() && self.ended.is_none();
        if wanted == self.polled_for_writing {
            return;
        }
        let interest = if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        match self.link.reregister(registry, token, interest) {
            Ok(()) => self.polled_for_writing = wanted,
            Err(error) => self.end(error),
        }
    }

    /// Is anything queued, or the rest of a frame unsent?
    pub fn has_unsent(&self) -> bool {
        !self.is_mute() && (!self.queue.is_empty() || self.link.is_cut())
    }

    /// Octets that wait in the queue.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Octets of memory that the queue holds.
    pub fn allocated(&self) -> usize {
        self.queue.allocated()
    }

    /// Frames that wait in the queue.
    pub fn queued_frames(&self) -> u64 {
        as_u64(self.queue.frames())
    }

    /// Is its queue over the high mark?
    pub fn is_congested(&self) -> bool {
        self.queue.len() > HIGH_MARK || self.queue.frames() > HIGH_MARK_FRAMES
    }

    /// Is its pause budget spent, so that nobody waits for it?
    pub fn is_overloaded(&mut self, now: Instant) -> bool {
        self.pause.is_overloaded(self.queue.oldest(), now)
    }

    /// Somebody waits for this port from `now` on: until when, at the latest.
    pub fn pause_deadline(&mut self, now: Instant) -> Option<Instant> {
        self.pause.deadline(self.queue.oldest(), now)
    }

    /// Somebody waited for this port until `now`; true when it is overloaded from now on.
    pub fn charge_pause(&mut self, now: Instant) -> bool {
        self.pause.charge(self.queue.oldest(), now)
    }

    /// What it has moved and dropped until `now`.
    pub fn counters(&self, now: Instant) -> Counters {
        let congested = self.congested.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        Counters {
            congested: self.counters.congested + congested,
            overloaded: self.pause.overloaded_time(now),
            ..self.counters
        }
    }

    /// See [`Link::may_be_cut`].
    pub fn may_be_cut(&self) -> bool {
        self.link.may_be_cut()
    }

    /// See [`Link::patience`].
    pub fn patience(&self) -> Option<Duration> {
        self.link.patience()
    }

    /// Asks the peer to send no more; see [`Link::stop_receiving`].
    pub fn stop_receiving(&mut self) -> bool {
        self.readable = true;
        self.is_stopped = self.link.stop_receiving();
        self.is_stopped
    }

    /// See [`Link::is_at_boundary`].
    pub fn is_at_boundary(&self) -> bool {
        self.link.is_at_boundary()
    }

    /// Ends the port; the first reason counts.
    pub fn end(&mut self, reason: io::Error) {
        self.ended.get_or_insert(reason);
    }

    /// Why the port is to be removed, once all that it received is relayed.
    pub fn ended(&self) -> Option<&io::Error> {
        self.ended.as_ref().filter(|_| self.held.is_empty())
    }

    /// Leaves the poll and drops what waits.
    pub fn close(&mut self, registry: &Registry, now: Instant, memory: &mut Memory) {
        // An error here means that the poll has forgotten the socket already.
        let _ = self.link.deregister(registry);
        let lost = self.queue.clear(memory);
        self.count_dropped(DiscardReason::Closed, lost);
        memory.give(self.held.len());
        self.held = Vec::new();
        self.note_congestion(now);
    }

    fn is_mute(&self) -> bool {
        self.mute.is_some() || self.ended.is_some()
    }

    /// The peer takes no more, but what it sent before is still to be forwarded.
    fn mute(&mut self, reason: io::Error) {
        self.mute.get_or_insert(reason);
        self.readable = true;
    }

    fn note_congestion(&mut self, now: Instant) {
        self.is_overloaded(now);
        match (self.is_congested(), self.congested) {
            (true, None) => self.congested = Some(now),
            (false, Some(since)) => {
                self.counters.congested += now.saturating_duration_since(since);
                self.congested = None;
            }
            _ => {}
        }
    }
}
