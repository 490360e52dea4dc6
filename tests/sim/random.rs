//! Random worlds: hosts that come, go, stall and send. `QHUB_SIM_SEED=N` replays one.

use std::time::Duration;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use qhub::bridge::Mode;

use crate::world::{Reads, World, broadcast, frame, mbit, number};

const MS: Duration = Duration::from_millis(1);

struct Dice(TestRng);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u32::try_from(limit).expect("small");
        usize::try_from(self.0.next_u32() % limit).expect("small")
    }
}

/// Received x fan-out = sent + queued + dropped, and frames of one pair stay in order.
fn play(seed: u64) {
    let mut dice = Dice::new(seed);
    let mode = if dice.below(2) == 0 { Mode::Switch } else { Mode::Hub };
    let mut world = World::with_memory(mode, 2 << 20);
    let mut gone = Vec::new();
    for _ in 0..4 {
        world.host(Reads::AtOnce);
    }
    let mut next = 1;
    for _ in 0..300 {
        let hosts = world.hosts.len();
        let from = dice.below(hosts);
        match dice.below(12) {
            0 if hosts < 12 => {
                world.host(mbit(200.0));
            }
            1 if hosts - gone.len() > 3 && !gone.contains(&from) => {
                world.hosts[from].leave();
                gone.push(from);
            }
            2 => world.hosts[from].reads = [Reads::AtOnce, mbit(0.0), mbit(5.0), mbit(300.0)][dice.below(4)],
            3 if !gone.contains(&from) => {
                world.hosts[from].send(&broadcast(from));
            }
            _ if !gone.contains(&from) => {
                let to = dice.below(hosts);
                let length = 60 + dice.below(9000);
                for _ in 0..dice.below(200) {
                    if world.hosts[from].send(&frame(from, to, next, length)) {
                        next += 1;
                    }
                }
            }
            _ => {}
        }
        world.run(MS, |_| {});
        balance(&mut world, seed);
    }
    for host in &world.hosts {
        let mut last = vec![0; world.hosts.len()];
        for (_, frame) in host.got.iter().filter(|(_, frame)| frame[0] != 0xff) {
            let from = usize::from(frame[11]);
            assert!(number(frame) > last[from], "seed {seed}: order");
            last[from] = number(frame);
        }
    }
}

/// What the ports that are there and those that are gone received, times where it was to go, is what
/// was sent, waits or was dropped.
fn balance(world: &mut World, seed: u64) {
    let snapshot = world.snapshot();
    let (mut sent, mut queued) = (snapshot.departed.tx_frames, 0);
    let mut dropped = snapshot.departed.drops.total();
    for port in &snapshot.ports {
        sent += port.counters.tx_frames;
        queued += port.queued_frames;
        dropped += port.counters.drops.total();
    }
    assert_eq!(snapshot.copies, sent + queued + dropped, "seed {seed}");
}

#[test]
fn books_balance_and_order_holds() {
    if let Ok(seed) = std::env::var("QHUB_SIM_SEED") {
        return play(seed.parse().expect("QHUB_SIM_SEED is a number"));
    }
    (0..40).for_each(play);
}
