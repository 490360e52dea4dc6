//! The end of the hub: what its peers sent is forwarded, and nobody is cut in mid-frame.

use std::io::ErrorKind;
use std::time::Duration;

use hub_protocol::stream::{self, PREFIX_LEN};
use qhub::bridge::Mode;

use crate::far::{Far, Folder};
use crate::net::{MS, NS, Net};
use crate::wire::{LENGTH, broadcast, bulk, frame, record};

const SILENCE: Duration = Duration::from_millis(20);
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

#[test]
fn a_drain_tells_unix_peers_and_forwards_what_they_sent() {
    let (mut net, [mut from, mut to]) = Net::introduced(Mode::Switch);
    let bytes = bulk(0, 1, 100_000);
    from.send(&bytes);
    assert!(!net.hub.is_drained(net.now + DRAIN_LIMIT), "no drain was asked for");
    net.hub.drain(net.now);
    assert_eq!(from.write_error(), ErrorKind::BrokenPipe);
    assert_eq!(to.write_error(), ErrorKind::BrokenPipe);
    net.settle();
    assert!(to.read() == bytes);
    assert_eq!(net.ports(), 2, "their ends are no news");
    assert_eq!(net.hub.wake(), Some(net.now + SILENCE));
    assert!(!net.hub.is_drained(net.now + SILENCE - NS));
    assert!(net.hub.is_drained(net.now + SILENCE));
}

#[test]
fn a_drain_waits_for_a_queue_but_500_ms_at_the_most() {
    for reads_again in [true, false] {
        let (mut net, [mut from, mut slow]) = Net::introduced(Mode::Switch);
        let bytes = bulk(0, 1, 3 << 20);
        let sent = net.fill(&mut from, &bytes);
        net.hub.drain(net.now);
        let start = net.now;
        net.settle();
        // The sender's gate is open now: all that it had sent waits for the slow one.
        assert_eq!(usize::try_from(net.counters(0).rx_frames - 1), Ok(sent / (PREFIX_LEN + LENGTH)));
        net.now = start + 100 * MS;
        net.settle();
        assert!(!net.hub.is_drained(net.now), "its queue is not empty");
        assert_eq!(net.hub.wake(), Some(start + DRAIN_LIMIT));
        if reads_again {
            let mut got = Vec::new();
            loop {
                let more = slow.read();
                if more.is_empty() {
                    break;
                }
                got.extend(more);
                net.settle();
                let is_queued = net.snapshot().ports[1].queued > 0;
                assert!(!is_queued || !net.hub.is_drained(net.now + SILENCE));
            }
            let whole = sent / (PREFIX_LEN + LENGTH) * (PREFIX_LEN + LENGTH);
            assert!(got == bytes[..whole], "{} of {whole}", got.len());
            assert!(net.hub.is_drained(net.now + SILENCE));
            assert_eq!(net.dropped(), 0);
        } else {
            assert!(!net.hub.is_drained(start + DRAIN_LIMIT - NS));
            assert!(net.hub.is_drained(start + DRAIN_LIMIT));
        }
    }
}

#[test]
fn a_drain_reads_tcp_until_it_is_silent_between_two_frames() {
    let mut net = Net::new(Mode::Switch);
    let (mut from, mut to) = (net.tcp(), net.tcp());
    let (whole, half) = (record(&frame(0, 1, 1, LENGTH)), record(&frame(0, 1, 2, LENGTH)));
    let start = net.now;
    net.hub.drain(start);
    net.turn();

    // A TCP peer is told nothing, and goes on.
    net.now = start + 15 * MS;
    from.send(&[&whole[..], &half[..700]].concat());
    net.until(|snapshot| snapshot.ports[0].counters.rx_frames == 1);
    to.expect(&whole);
    net.now = start + 300 * MS;
    net.turn();
    assert!(!net.hub.is_drained(net.now), "silent for long, but in mid-frame");
    assert_eq!(net.hub.wake(), Some(start + DRAIN_LIMIT));
    assert!(!net.hub.is_drained(start + DRAIN_LIMIT - NS));
    assert!(net.hub.is_drained(start + DRAIN_LIMIT));

    from.send(&half[700..]);
    net.until(|snapshot| snapshot.ports[0].counters.rx_frames == 2);
    to.expect(&half);
    assert_eq!(net.hub.wake(), Some(net.now + SILENCE));
    assert!(!net.hub.is_drained(net.now + SILENCE - NS), "silence counts from the last octet");
    assert!(net.hub.is_drained(net.now + SILENCE));
}

#[test]
fn an_empty_hub_is_drained_at_once() {
    let mut net = Net::new(Mode::Switch);
    net.hub.drain(net.now);
    assert!(net.hub.is_drained(net.now));
}

#[test]
fn a_drain_forwards_what_datagram_peers_sent() {
    let (mut net, folder) = (Net::new(Mode::Switch), Folder::new());
    let mut wire = net.unix();
    net.open(&folder.spec(""));
    let (far, pair, udp) = (folder.far("vm"), net.pair(), Far::udp(net.open_udp("")));
    let fars = [far, pair, udp];
    for (number, far) in fars.iter().enumerate() {
        far.send(&broadcast(number));
        net.until(|snapshot| snapshot.fdb.len() == number + 1);
    }
    net.settle();
    wire.read();
    let sent = [0, 1, 2].map(|number| frame(number, 9, 1, LENGTH));
    fars.iter().zip(&sent).for_each(|(far, frame)| far.send(frame));
    net.hub.drain(net.now);
    net.settle();
    let mut got: Vec<_> = stream::frames(&wire.read()).map(<[u8]>::to_vec).collect();
    got.sort();
    assert!(got == sent, "{} of 3", got.len());
    assert!(net.hub.is_drained(net.now + SILENCE));
}
