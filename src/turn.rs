//! The life of a hub that is made: it turns until something ends it, and what waits is sent.

use std::time::Instant;

use anyhow::{Context, Result};
use log::info;
use mio::Token;

use crate::hub::{self, Hub};
use crate::logging;
use crate::signals::{self, Request, Signals};

/// Why a hub has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A signal has asked for it.
    Asked,
    /// It was over by itself.
    Over,
}

/// What lives beside a hub, in its loop.
pub trait Companion {
    /// Does what it wants of the hub, before a turn.
    fn act(&mut self, _hub: &mut Hub, _now: Instant) {}

    /// Looks at what has become of the hub in a turn. True when that is to end.
    fn look(&mut self, hub: &Hub, now: Instant) -> bool;

    /// When it wants to be asked again, whatever the poll says.
    fn wake(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// The poll tells of something from outside.
    fn note(&mut self, _token: Token) {}
}

/// Turns `hub` until a signal ends it, or its companion wants that; logs the totals.
///
/// # Errors
///
/// When the poll itself fails.
pub fn until_stopped(hub: &mut Hub, arrived: &mut Signals, companion: &mut impl Companion) -> Result<Ending> {
    let (mut is_draining, mut is_stopping) = (false, false);
    loop {
        let now = hub::now();
        companion.act(hub, now);
        hub.turn(now);
        let is_over = companion.look(hub, now);
        if hub.is_drained(now) {
            break;
        }
        if is_over && !is_draining {
            is_draining = true;
            hub.drain(now);
            continue;
        }
        let wake = [hub.wake(), companion.wake(now)].into_iter().flatten().min();
        let told =
            hub.wait(wake.map(|wake| wake.saturating_duration_since(now))).context("wait for events")?;
        if told.is_empty() {
            continue;
        }
        told.into_iter().for_each(|token| companion.note(token));
        for request in arrived.requests() {
            match request {
                Request::Show => info!(target: logging::ASKED, "{}", hub.snapshot(hub::now())),
                Request::Stop if is_stopping => std::process::exit(signals::TERMINATED),
                Request::Stop => {
                    info!("stopping; a second signal stops at once");
                    is_stopping = true;
                    if !is_draining {
                        is_draining = true;
                        hub.drain(hub::now());
                    }
                }
            }
        }
    }
    for line in hub.snapshot(hub::now()).totals() {
        info!("{line}");
    }
    // Who ends a pipeline ends both sides of it, in whatever order.
    is_stopping |= arrived.requests().contains(&Request::Stop);
    Ok(if is_stopping { Ending::Asked } else { Ending::Over })
}
