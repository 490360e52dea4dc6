//! The life of a hub that is made: it turns until something ends it, and what waits is sent.

use anyhow::{Context, Result};
use log::info;

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

/// Turns `hub` until a signal ends it, or what `is_over` says after a turn; logs the totals.
///
/// # Errors
///
/// When the poll itself fails.
pub fn until_stopped(hub: &mut Hub, arrived: &mut Signals, is_over: impl Fn(&Hub) -> bool) -> Result<Ending> {
    let (mut is_draining, mut is_stopping) = (false, false);
    loop {
        let now = hub::now();
        hub.turn(now);
        if hub.is_drained(now) {
            break;
        }
        if !is_draining && is_over(hub) {
            is_draining = true;
            hub.drain(now);
            continue;
        }
        let timeout = hub.wake().map(|wake| wake.saturating_duration_since(now));
        if hub.wait(timeout).context("wait for events")?.is_empty() {
            continue;
        }
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
