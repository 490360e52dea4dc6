//! The flow control of the hub, clause by clause (the numbers are those of the design).

use std::time::Duration;

use qhub::bridge::Mode;
use qhub::config::{HIGH_MARK, PortOptions};
use qhub::discard::DiscardReason;
use qhub::hub::Snapshot;

use crate::world::{Reads, STEP, World, broadcast, frame, mbit, number};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const LENGTH: usize = 1514;

fn dropped(snapshot: &Snapshot, reason: DiscardReason) -> u64 {
    snapshot.ports.iter().map(|port| port.counters.drops.count(reason)).sum()
}

/// A guest that sends without end: frames numbered in sequence, to each of its destinations in turn.
struct Sender {
    host: usize,
    to: Vec<usize>,
    next: u32,
}

impl Sender {
    fn new(host: usize, to: &[usize]) -> Self {
        Self { host, to: to.to_vec(), next: 0 }
    }

    /// Fills the kernel's buffer, up to `most` frames.
    fn send(&mut self, world: &mut World, most: usize) {
        let turns = u32::try_from(self.to.len()).expect("few");
        for _ in 0..most {
            let to = self.to[usize::try_from(self.next % turns).expect("few")];
            if !world.hosts[self.host].send(&frame(self.host, to, self.next, LENGTH)) {
                return;
            }
            self.next += 1;
        }
    }
}

/// Gaps between the frames of `host` since the start: the longest, and the share of the time that
/// was spent in those over 20 ms.
fn gaps(world: &World, host: usize) -> (Duration, f64) {
    let times = world.hosts[host].got.iter().map(|&(at, _)| at).chain([world.now]);
    let (mut last, mut longest, mut stalled) = (world.start, Duration::ZERO, Duration::ZERO);
    for at in times {
        let gap = at - last;
        longest = longest.max(gap);
        if gap > 20 * MS {
            stalled += gap;
        }
        last = at;
    }
    (longest, stalled.as_secs_f64() / (world.now - world.start).as_secs_f64())
}

/// 1: a bulk flow to one slower port loses nothing, in either mode.
#[test]
fn a_bulk_flow_to_a_slower_port_loses_nothing() {
    for mode in [Mode::Switch, Mode::Hub] {
        let mut world = World::new(mode);
        let (from, to) = (world.host(Reads::AtOnce), world.host(mbit(1500.0)));
        world.introduce();
        let mut sender = Sender::new(from, &[to]);
        world.run(200 * MS, |world| sender.send(world, 1000));
        world.run(20 * MS, |_| {});
        let got: Vec<u32> = world.hosts[to].got.iter().map(|(_, frame)| number(frame)).collect();
        assert!(got.len() > 23_000, "{mode:?}: {}", got.len());
        assert_eq!(got, (0..sender.next).collect::<Vec<_>>(), "{mode:?}");
        assert!(world.snapshot().ports[1].counters.congested > 100 * MS, "{mode:?}");
    }
}

/// 1: four saturating senders into one port lose nothing and get equal shares.
#[test]
fn four_senders_share_one_port_without_loss() {
    let mut world = World::new(Mode::Switch);
    let to = world.host(mbit(2000.0));
    let mut senders: Vec<Sender> = (0..4).map(|_| Sender::new(world.host(Reads::AtOnce), &[to])).collect();
    world.introduce();
    world.run(300 * MS, |world| senders.iter_mut().for_each(|sender| sender.send(world, 1000)));
    world.run(20 * MS, |_| {});
    let shares: Vec<f64> = senders.iter().map(|sender| f64::from(sender.next)).collect();
    let sum: f64 = shares.iter().sum();
    let jain = sum * sum / (4.0 * shares.iter().map(|share| share * share).sum::<f64>());
    assert!(jain > 0.99, "{shares:?}");
    let sent: u32 = senders.iter().map(|sender| sender.next).sum();
    assert_eq!(u32::try_from(world.hosts[to].got.len()), Ok(sent));
    assert_eq!(dropped(&world.snapshot(), DiscardReason::QueueFull), 0);
}

/// 1: one uncongested destination in the batch is enough to go on.
#[test]
fn a_batch_with_one_uncongested_target_goes_on() {
    let mut world = World::new(Mode::Switch);
    let (from, stuck, well) = (world.host(Reads::AtOnce), world.host(mbit(0.0)), world.host(Reads::AtOnce));
    world.introduce();
    let mut sender = Sender::new(from, &[stuck, well]);
    // Both are in every batch, because the sender is always ahead.
    world.run(200 * MS, |world| sender.send(world, 1000));
    let (longest, _) = gaps(&world, well);
    assert!(longest < 2 * MS, "{longest:?}");
    let snapshot = world.snapshot();
    assert!(dropped(&snapshot, DiscardReason::QueueFull) > 0);
    let queued = snapshot.ports[stuck].queued;
    assert!(((1 << 20) - LENGTH..=1 << 20).contains(&queued), "the whole queue is used: {queued}");
    assert_eq!(snapshot.ports[stuck].counters.overloaded, Duration::ZERO, "nobody waited");
}

/// 1 and 2: nobody waits for an overloaded port, and its presence does not cost the others their
/// frames.
#[test]
fn an_overloaded_port_leaves_its_neighbours_lossless() {
    let mut world = World::new(Mode::Switch);
    let (from, stuck, well) = (world.host(Reads::AtOnce), world.host(mbit(0.0)), world.host(mbit(1500.0)));
    world.introduce();
    let mut stuffing = Sender::new(from, &[stuck]);
    world.run(200 * MS, |world| stuffing.send(world, 1000));
    let mut sender = Sender::new(from, &[stuck, well]);
    world.run(200 * MS, |world| sender.send(world, 1000));
    world.run(20 * MS, |_| {});
    let snapshot = world.snapshot();
    assert!(snapshot.ports[stuck].counters.overloaded > 200 * MS);
    assert!(snapshot.ports[well].counters.congested > 100 * MS, "it is slower than the sender");
    assert_eq!(u32::try_from(world.hosts[well].got.len()), Ok(sender.next / 2));
}

/// 2: a hub that does not come to run does not make a port slow that reads all the time.
#[test]
fn a_late_turn_costs_no_frame() {
    let mut world = World::new(Mode::Switch);
    let (from, to) = (world.host(Reads::AtOnce), world.host(mbit(1500.0)));
    world.introduce();
    let mut sender = Sender::new(from, &[to]);
    for _ in 0..5 {
        world.run(20 * MS, |world| sender.send(world, 1000));
        world.hold_up_the_hub(80 * MS);
    }
    world.run(20 * MS, |_| {});
    let snapshot = world.snapshot();
    assert_eq!(snapshot.ports[to].counters.overloaded, Duration::ZERO);
    assert_eq!(u32::try_from(world.hosts[to].got.len()), Ok(sender.next));
}

/// 2: a hiccup shorter than the budget costs the flow nothing but the pause.
#[test]
fn a_hiccup_loses_nothing() {
    let mut world = World::new(Mode::Switch);
    let (from, to) = (world.host(Reads::AtOnce), world.host(Reads::AtOnce));
    world.introduce();
    let mut sender = Sender::new(from, &[to]);
    for _ in 0..5 {
        world.hosts[to].reads = mbit(0.0);
        world.run(45 * MS, |world| sender.send(world, 1000));
        world.hosts[to].reads = Reads::AtOnce;
        world.run(SECOND, |world| sender.send(world, 2));
    }
    let snapshot = world.snapshot();
    assert_eq!(dropped(&snapshot, DiscardReason::QueueFull), 0);
    assert_eq!(snapshot.ports[to].counters.overloaded, Duration::ZERO);
    assert!(snapshot.ports[to].counters.congested > 150 * MS, "it was congested");
}

/// 2: a port that stops costs its sender the free time and one budget, once; then its queue keeps
/// the high mark and drops the rest, until it reads again.
#[test]
fn a_stopped_port_costs_55_ms_once() {
    let mut world = World::new(Mode::Switch);
    let (from, stuck, well) = (world.host(Reads::AtOnce), world.host(mbit(0.0)), world.host(Reads::AtOnce));
    world.introduce();
    // One frame at a time, so that each batch has one destination: every second one waits.
    let mut sender = Sender::new(from, &[stuck, well]);
    world.run(5 * SECOND, |world| sender.send(world, 1));
    let (longest, stalled) = gaps(&world, well);
    assert!((50 * MS..=57 * MS).contains(&longest), "{longest:?}");
    assert!(stalled < 0.02, "{stalled}");
    let snapshot = world.snapshot();
    let counters = snapshot.ports[stuck].counters;
    assert!(counters.overloaded > 4 * SECOND);
    let queued = snapshot.ports[stuck].queued;
    assert!(queued <= HIGH_MARK + 2 * (LENGTH + 4), "no more than the mark once it is overloaded: {queued}");
    assert!(counters.drops.count(DiscardReason::QueueFull) > 1000);

    world.hosts[stuck].reads = Reads::AtOnce;
    world.run(10 * MS, |_| {});
    let overloaded = world.snapshot().ports[stuck].counters.overloaded;
    let before = dropped(&world.snapshot(), DiscardReason::QueueFull);
    world.run(SECOND, |world| sender.send(world, 1));
    assert_eq!(world.snapshot().ports[stuck].counters.overloaded, overloaded, "it is well again");
    assert_eq!(dropped(&world.snapshot(), DiscardReason::QueueFull), before);
}

/// 2: a slow port costs a sender that alternates between it and another a few percent of the time.
#[test]
fn a_slow_port_costs_a_few_percent() {
    for rate in [0.0, 2.0, 10.0, 50.0, 200.0] {
        let mut world = World::new(Mode::Switch);
        let (from, slow, well) =
            (world.host(Reads::AtOnce), world.host(mbit(rate)), world.host(Reads::AtOnce));
        world.introduce();
        let mut sender = Sender::new(from, &[slow, well]);
        world.run(5 * SECOND, |world| sender.send(world, 4));
        let (longest, stalled) = gaps(&world, well);
        assert!(
            longest <= 60 * MS && stalled <= 0.06,
            "{rate} Mbit/s: worst gap {longest:?}, stalled {stalled:.3}"
        );
    }
}

/// 2: `pause=` is the budget: without one a stopped port costs no more than the free time.
#[test]
fn the_budget_is_an_option_of_the_port() {
    for (pause, least, most) in [(0, 0, 7), (200, 195, 207)] {
        let mut world = World::new(Mode::Switch);
        let from = world.host(Reads::AtOnce);
        let options = PortOptions { pause: pause * MS, ..PortOptions::default() };
        let (stuck, well) = (world.host_with(mbit(0.0), options, false), world.host(Reads::AtOnce));
        world.introduce();
        let mut sender = Sender::new(from, &[stuck, well]);
        world.run(SECOND, |world| sender.send(world, 1));
        let (longest, _) = gaps(&world, well);
        assert!((least * MS..=most * MS).contains(&longest), "pause={pause}ms: {longest:?}");
    }
}

/// 3: a peer whose own socket blocks is read again after 5 ms at the most; another waits longer.
#[test]
fn a_blocking_peer_waits_5_ms_at_the_most() {
    for (blocks, least, most) in [(true, 4, 6), (false, 50, 57)] {
        let mut world = World::new(Mode::Switch);
        let from = world.host_with(Reads::AtOnce, PortOptions::default(), blocks);
        let stuck = world.host(mbit(0.0));
        world.introduce();
        let mut sender = Sender::new(from, &[stuck]);
        let (mut taken_at, mut longest) = (world.now, Duration::ZERO);
        let mut last = sender.next;
        // Long enough to be stuck, too short for the budget to be spent twice.
        world.run(150 * MS, |world| {
            sender.send(world, 1000);
            if sender.next != last {
                longest = longest.max(world.now - taken_at);
                (taken_at, last) = (world.now, sender.next);
            }
        });
        assert!((least * MS..=most * MS).contains(&longest), "blocks {blocks}: {longest:?}");
    }
}

/// 4: a flood with one egress counts as unicast; with more, it makes nobody wait.
#[test]
fn only_a_flood_with_one_egress_waits() {
    for others in [1, 2] {
        let mut world = World::new(Mode::Switch);
        let from = world.host(Reads::AtOnce);
        for _ in 0..others {
            world.host(mbit(1500.0));
        }
        let mut sent = 0_u64;
        world.run(100 * MS, |world| {
            let mut frame = broadcast(from);
            frame.resize(LENGTH, 0);
            while world.hosts[from].send(&frame) {
                sent += 1;
            }
        });
        let lost = dropped(&world.snapshot(), DiscardReason::QueueFull);
        assert_eq!(lost == 0, others == 1, "{others} others: lost {lost} of {sent}");
    }
}

/// 4: a hub waits for the port where the destination was last heard; the others get copies as far
/// as they keep up.
#[test]
fn a_hub_waits_for_the_destination_only() {
    let mut world = World::new(Mode::Hub);
    let (from, to, bystander) = (world.host(Reads::AtOnce), world.host(mbit(1500.0)), world.host(mbit(1.0)));
    world.introduce();
    let mut sender = Sender::new(from, &[to]);
    world.run(300 * MS, |world| sender.send(world, 1000));
    world.run(20 * MS, |_| {});
    assert_eq!(u32::try_from(world.hosts[to].got.len()), Ok(sender.next), "no loss");
    assert!(sender.next > 35_000, "not held up by the bystander: {}", sender.next);
    let counters = world.snapshot().ports[bystander].counters;
    assert!(counters.drops.count(DiscardReason::QueueFull) > 10_000);
    assert_eq!(counters.overloaded, Duration::ZERO);
}

/// 4, `--hub` with two busy ports: both ways at once, nothing is lost.
#[test]
fn a_hub_with_two_busy_ports_loses_nothing() {
    let mut world = World::new(Mode::Hub);
    let (one, other) = (world.host(mbit(2000.0)), world.host(mbit(1500.0)));
    world.introduce();
    let mut senders = [Sender::new(one, &[other]), Sender::new(other, &[one])];
    world.run(200 * MS, |world| senders.iter_mut().for_each(|sender| sender.send(world, 1000)));
    world.run(20 * MS, |_| {});
    assert_eq!(u32::try_from(world.hosts[other].got.len()), Ok(senders[0].next));
    assert_eq!(u32::try_from(world.hosts[one].got.len()), Ok(senders[1].next));
}

/// 6: a queue takes what `queue=` says and not an octet more.
#[test]
fn a_queue_is_bounded() {
    let mut world = World::new(Mode::Switch);
    let from = world.host(Reads::AtOnce);
    let options = PortOptions { queue: 512 * 1024, pause: Duration::ZERO, ..PortOptions::default() };
    let (stuck, well) = (world.host_with(mbit(0.0), options, false), world.host(Reads::AtOnce));
    world.introduce();
    let mut sender = Sender::new(from, &[stuck, well]);
    world.run(50 * MS, |world| sender.send(world, 1000));
    let queued = world.snapshot().ports[stuck].queued;
    assert!((512 * 1024 - LENGTH - 4..=512 * 1024).contains(&queued), "{queued}");
}

/// 6: when the memory of all queues is spent, the longest drops, and a short one takes its frames.
#[test]
fn the_longest_queue_pays_for_spent_memory() {
    let limit = 3 << 20;
    let mut world = World::with_memory(Mode::Switch, limit);
    let from = world.host(Reads::AtOnce);
    let stuck: Vec<usize> = (0..4).map(|_| world.host(mbit(0.0))).collect();
    let (late, well) = (world.host(mbit(0.0)), world.host(Reads::AtOnce));
    world.introduce();
    let mut flood = Sender::new(from, &[stuck[0], stuck[1], stuck[2], stuck[3], well]);
    world.run(100 * MS, |world| flood.send(world, 1000));
    assert!(dropped(&world.snapshot(), DiscardReason::MemoryFull) > 0);
    let mut trickle = Sender::new(from, &[late, well]);
    world.run(30 * MS, |world| trickle.send(world, 2));
    let snapshot = world.snapshot();
    assert!(snapshot.memory <= limit, "{}", snapshot.memory);
    assert!(snapshot.ports[late].queued > 0, "a new queue still finds room");
    assert_eq!(snapshot.ports[late].counters.drops.count(DiscardReason::MemoryFull), 0);
}

/// Whoever waits is woken when its port dies.
#[test]
fn the_death_of_a_stuck_port_frees_its_sender() {
    let mut world = World::new(Mode::Switch);
    let options = PortOptions { pause: SECOND, ..PortOptions::default() };
    let (from, stuck) = (world.host(Reads::AtOnce), world.host_with(mbit(0.0), options, false));
    let well = world.host(Reads::AtOnce);
    world.introduce();
    let mut sender = Sender::new(from, &[stuck]);
    world.run(20 * MS, |world| sender.send(world, 1000));
    let held = sender.next;
    world.run(20 * MS, |world| sender.send(world, 1000));
    assert_eq!(sender.next, held, "it waits");
    world.hosts[stuck].leave();
    world.run(2 * STEP, |_| {});
    assert!(world.hosts[from].send(&frame(from, well, 1, LENGTH)));
    world.run(2 * MS, |_| {});
    let got = &world.hosts[well].got;
    assert_eq!(number(&got.last().expect("frames").1), 1);
}
