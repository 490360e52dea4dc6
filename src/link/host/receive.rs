//! Receiving from an interface: one frame with each system call, until nothing is left.

use std::io;

use crate::batch::FrameBatch;
use crate::link::Received;

/// Frames that one receive takes at the most.
const BURST: usize = 256;

/// Lets `receive_one` put one frame after the other into `batch`, or count it as lost there.
///
/// # Errors
///
/// Those of `receive_one`; it says `WouldBlock` when nothing is left, and `Interrupted` when there was
/// nothing this time.
pub(super) fn receive(
    batch: &mut FrameBatch,
    mut receive_one: impl FnMut(&mut FrameBatch) -> io::Result<()>,
) -> io::Result<Received> {
    let mut received = Received::Nothing;
    for _ in 0..BURST {
        if batch.room().is_none() {
            return Ok(Received::More);
        }
        match receive_one(batch) {
            Ok(()) => received = Received::Drained,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(received),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Received::More)
}
