//! What leaves by a port: at once when the transport takes it, later from the queue, or never, with a
//! reason.

use std::io;
use std::time::Instant;

use hub_protocol::stream;
use log::{info, warn};

use super::{Memory, Port};
use crate::batch::{Bundle, Run, Taken};
use crate::config::{HIGH_MARK, HIGH_MARK_FRAMES, PortOptions};
use crate::discard::DiscardReason;
use crate::link::SendError;

/// No frames.
const NOTHING: Run<'static> = Run { records: &[], frames: 0 };

impl Port {
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

    /// Sends a bundle as it is, if this port may and can; else its frames are to be sent.
    pub fn send_bundle(&mut self, bundle: &Bundle<'_>, now: Instant) -> bool {
        let is_free = !self.is_mute() && !self.has_unsent() && !self.trouble.is_resting(now);
        let is_admitted = self.options.pad == 0 && bundle.longest() <= self.options.max_frame;
        let is_sent = is_free && is_admitted && self.link.send_bundle(bundle);
        if is_sent {
            self.count_sent(bundle.extent());
        }
        is_sent
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
            let sent = self.trouble.unless_resting(now, || self.link.send(run));
            match sent {
                Ok(taken) => {
                    self.count_sent(taken);
                    run = run.split(taken).1;
                    // Less than all may also be what came before a frame that was refused.
                    if taken.frames == 0 || self.link.is_cut() {
                        return run;
                    }
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
            let sent = self.trouble.unless_resting(now, || self.link.send(front));
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
}
