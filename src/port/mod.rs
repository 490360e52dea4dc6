//! A port: a link, what is known of its readiness, an egress queue, and counters.
//!
//! Readiness is remembered here, because the poll tells of each change once: it is cleared only by
//! a receive that drained the transport.

mod counters;
mod pause;
mod queue;
mod trouble;

use std::io;
use std::time::{Duration, Instant};

use hub_protocol::stream::{self, Cut};
use log::{info, trace, warn};
use mio::{Interest, Registry, Token};

use crate::batch::{ARENA, FrameBatch, Run, Taken};
use crate::bridge::PortSet;
use crate::config::{HIGH_MARK, HIGH_MARK_FRAMES, PortOptions};
use crate::discard::{DiscardReason, Drops};
use crate::link::{Link, Peer, Received, SendError};
pub use counters::Counters;
use pause::PauseBudget;
pub use pause::YOUNG;
use queue::EgressQueue;
pub use queue::{Memory, as_u64};
pub use trouble::REST;
use trouble::Trouble;

/// Least time between two warnings about the same thing.
pub const QUIET: Duration = Duration::from_secs(10);

/// No frames.
const NOTHING: Run<'static> = Run { records: &[], frames: 0 };

/// The error of a frame for a peer that is left alone.
fn resting() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

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
        self.count_received(&lost);
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
    pub fn count_received(&mut self, run: &Run<'_>) {
        self.counters.rx_frames += as_u64(run.frames);
        self.counters.rx_bytes += as_u64(run.payload());
    }

    /// Counts frames that its peer sent and that were lost before they could be received.
    pub fn count_lost(&mut self, lost: &Drops) {
        self.counters.rx_frames += lost.total();
        self.counters.drops.merge(lost);
    }

    /// Counts `frames` that came in or were to leave here, and were dropped.
    pub fn count_dropped(&mut self, reason: DiscardReason, frames: usize) {
        if frames > 0 {
            trace!(port = self.name.as_str(), reason = reason.name(), frames; "dropped");
            self.counters.drops.add(reason, as_u64(frames));
        }
    }

    /// `run` as this port may send it: without frames that are too long for it, and padded, which
    /// is written to `edited`. A port without such options takes it as it is.
    pub fn admit<'r>(&mut self, run: Run<'r>, edited: &'r mut Vec<u8>) -> Run<'r> {
        let PortOptions { max_frame, pad, .. } = self.options;
        if max_frame >= stream::MAX_FRAME && pad == 0 {
            return run;
        }
        if stream::frames(run.records).all(|frame| (pad..=max_frame).contains(&frame.len())) {
            return run;
        }
        for frame in stream::frames(run.records) {
            if frame.len() > max_frame {
                self.count_dropped(DiscardReason::TooBig, 1);
            } else if frame.len() < pad {
                let mut padded = frame.to_vec();
                padded.resize(pad, 0);
                stream::append(edited, &padded);
            } else {
                stream::append(edited, frame);
            }
        }
        Run::of(edited)
    }

    /// Sends what goes at once, and returns what is left to be queued.
    pub fn send<'r>(&mut self, mut run: Run<'r>, now: Instant) -> Run<'r> {
        if self.is_mute() {
            self.count_dropped(DiscardReason::Closed, run.frames);
            return NOTHING;
        }
        if !self.queue.is_empty() || self.link.is_cut() {
            return run;
        }
        while run.frames > 0 {
            let sent = if self.trouble.is_resting(now) {
                Err(SendError::Down(resting()))
            } else {
                self.link.send(run)
            };
            match sent {
                Ok(taken) => {
                    self.count_sent(taken);
                    return run.split(taken).1;
                }
                Err(error) => run = run.split(self.drop_unsent(run.extent(), run.first(), error, now)).1,
            }
        }
        run
    }

    /// Counts frames that the link took.
    fn count_sent(&mut self, taken: Taken) {
        self.counters.count_sent(taken);
        if taken.frames > 0 && self.trouble.is_over() {
            info!(port = self.name.as_str(), peer:% = self.peer; "can be sent to again");
        }
    }

    /// The link did not send the `first` of `all` frames: drops as many as that concerns, and
    /// returns how many these are.
    fn drop_unsent(&mut self, all: Taken, first: Taken, error: SendError, now: Instant) -> Taken {
        let (reason, lost) = match &error {
            SendError::Refused(_) => (DiscardReason::Refused, first),
            SendError::Down(_) => (DiscardReason::Down, all),
            SendError::Broken(_) => (DiscardReason::Closed, all),
        };
        self.count_dropped(reason, lost.frames);
        match error {
            SendError::Broken(error) => self.mute(error),
            SendError::Down(_) if self.trouble.is_resting(now) => {}
            SendError::Down(error) => {
                self.trouble.rest(now);
                self.warn_unsent(&error, now);
            }
            SendError::Refused(error) => self.warn_unsent(&error, now),
        }
        lost
    }

    fn warn_unsent(&mut self, error: &io::Error, now: Instant) {
        if self.trouble.is_news(error, now) {
            warn!(port = self.name.as_str(), peer:% = self.peer; "can't send: {error}; dropping what is for it until that changes");
        }
    }

    /// Memory that [`Self::enqueue`] of `run` takes.
    pub fn queue_cost(&self, run: Run<'_>) -> usize {
        self.queue.cost(run.records.len())
    }

    /// As much of `run` as the queue has room for; the rest is dropped.
    pub fn fit<'r>(&mut self, run: Run<'r>, now: Instant) -> Run<'r> {
        let (octets, frames) = if self.is_overloaded(now) {
            (HIGH_MARK, HIGH_MARK_FRAMES.saturating_sub(self.queue.frames()))
        } else {
            (self.options.queue, run.frames)
        };
        let room = octets.saturating_sub(self.queue.len());
        let (fitting, lost) = run.split(run.start(room, frames));
        self.count_dropped(DiscardReason::QueueFull, lost.frames);
        fitting
    }

    /// Queues `run`, which fits.
    pub fn enqueue(&mut self, run: Run<'_>, now: Instant, memory: &mut Memory) {
        if run.frames > 0 {
            self.queue.push(run, now, memory);
        }
        self.note_congestion(now);
    }

    /// Drops queued frames, the newest first, until about `octets` of memory are free.
    pub fn shed(&mut self, octets: usize, now: Instant, memory: &mut Memory) {
        let target = self.queue.allocated().saturating_sub(octets);
        while self.queue.allocated() > target {
            let dropped = self.queue.drop_newest(memory);
            self.count_dropped(DiscardReason::MemoryFull, dropped);
        }
        self.note_congestion(now);
    }

    /// Sends what waits, as far as it goes.
    pub fn flush(&mut self, now: Instant, memory: &mut Memory) {
        let result = self.flush_link(now, memory);
        if let Err(error) = result {
            self.mute(error);
        }
        if self.is_mute() {
            let lost = self.queue.clear(memory);
            self.count_dropped(DiscardReason::Closed, lost);
        }
        self.note_congestion(now);
    }

    fn flush_link(&mut self, now: Instant, memory: &mut Memory) -> io::Result<()> {
        self.link.flush()?;
        while !self.link.is_cut() && !self.is_mute() && !self.queue.is_empty() {
            let front = self.queue.front();
            let (all, first) = (front.extent(), front.first());
            let sent = if self.trouble.is_resting(now) {
                Err(SendError::Down(resting()))
            } else {
                self.link.send(front)
            };
            let (gone, is_full) = match sent {
                Ok(taken) => {
                    self.count_sent(taken);
                    // Less than all may also be what came before a frame that was refused.
                    (taken, taken.frames == 0)
                }
                Err(error) => (self.drop_unsent(all, first, error, now), false),
            };
            self.queue.advance(gone, memory);
            if is_full {
                break;
            }
        }
        Ok(())
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

    /// See [`Link::has_end`].
    pub fn has_end(&self) -> bool {
        self.link.has_end()
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
