//! Links that can't send: a frame that the system refuses, a peer that is not there, the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hub_protocol::stream::{self, MAX_FRAME, PREFIX_LEN};
use mio::{Interest, Registry, Token};
use qhub::batch::{FrameBatch, Run, Taken};
use qhub::bridge::{Mode, PortId};
use qhub::config::PortOptions;
use qhub::hub::Readiness;
use qhub::link::{DatagramLink, Link, Peer, Received, SendError};
use qhub::port::REST;
use socket2::{Domain, Socket, Type};

use crate::far::Far;
use crate::net::Net;
use crate::wire::{LENGTH, Wire, broadcast, frame, record, records};

#[derive(Clone, Copy, Debug)]
enum Fault {
    Refused,
    Down,
    Broken,
}

/// What the system makes of what it is given.
#[derive(Debug, Default)]
struct System {
    /// What happens to the frame of that number, each time that it is tried.
    faults: BTreeMap<usize, Fault>,
    /// Frames that there is room for.
    room: usize,
    sent: Vec<Vec<u8>>,
    tried: Vec<usize>,
}

/// A datagram link to it, which receives nothing.
#[derive(Debug)]
struct Faulty(Rc<RefCell<System>>);

impl Link for Faulty {
    fn register(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn reregister(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        Ok(())
    }

    fn receive(&mut self, _: &mut FrameBatch) -> io::Result<Received> {
        Ok(Received::Nothing)
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        let (mut system, mut taken) = (self.0.borrow_mut(), Taken::default());
        for frame in stream::frames(run.records) {
            let number = number(frame);
            system.tried.push(number);
            let error = io::Error::other("as told");
            match system.faults.get(&number) {
                Some(_) if taken.frames > 0 => break,
                Some(Fault::Refused) => return Err(SendError::Refused(error)),
                Some(Fault::Down) => return Err(SendError::Down(error)),
                Some(Fault::Broken) => return Err(SendError::Broken(error)),
                None if system.room == 0 => break,
                None => {}
            }
            system.room -= 1;
            system.sent.push(frame.to_vec());
            taken.octets += PREFIX_LEN + frame.len();
            taken.frames += 1;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_cut(&self) -> bool {
        false
    }

    fn max_frame(&self) -> usize {
        MAX_FRAME
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    fn stop_receiving(&mut self) -> bool {
        false
    }

    fn is_at_boundary(&self) -> bool {
        true
    }
}

/// The number that [`frame`] wrote.
fn number(frame: &[u8]) -> usize {
    frame[14..22].try_into().map(usize::from_be_bytes).expect("a whole frame")
}

/// A hub with a stream, whose frames all go to a link with `faults`.
struct Trial {
    net: Net,
    wire: Wire,
    system: Rc<RefCell<System>>,
    port: PortId,
}

impl Trial {
    fn new(faults: &[(usize, Fault)], room: usize) -> Self {
        let mut net = Net::new(Mode::Switch);
        let wire = net.unix();
        let faults = faults.iter().copied().collect();
        let system = Rc::new(RefCell::new(System { faults, room, ..System::default() }));
        let link = Box::new(Faulty(Rc::clone(&system)));
        let options = PortOptions::default();
        let port = net.hub.attach("faulty", link, Peer::Unknown, options, net.now).expect("room");
        Self { net, wire, system, port }
    }

    /// Sends the frames of these numbers at once.
    fn send(&mut self, numbers: impl Iterator<Item = usize>) {
        self.wire.send(&records(&numbers.map(|number| frame(0, 1, number, LENGTH)).collect::<Vec<_>>()));
        self.net.settle();
    }

    /// There is room for so many more.
    fn make_room(&mut self, room: usize) {
        self.system.borrow_mut().room = room;
        // A port asks for this while it has something unsent.
        self.net.hub.note(self.port, Readiness { writable: true, ..Readiness::default() });
        self.net.settle();
    }

    fn sent(&self) -> Vec<usize> {
        self.system.borrow().sent.iter().map(|frame| number(frame)).collect()
    }

    fn lost(&mut self) -> String {
        self.net.lost("faulty1")
    }
}

fn without(count: usize, lost: &[usize]) -> Vec<usize> {
    (0..count).filter(|number| !lost.contains(number)).collect()
}

const PLENTY: usize = 1000;

#[test]
fn a_refused_frame_is_dropped_alone() {
    for refused in [&[0][..], &[4], &[9], &[0, 1, 2], &[3, 4, 8], &[8, 9], &[0, 9]] {
        let faults: Vec<_> = refused.iter().map(|&number| (number, Fault::Refused)).collect();
        let mut it = Trial::new(&faults, PLENTY);
        it.send(0..10);
        it.make_room(PLENTY);
        assert_eq!(it.sent(), without(10, refused), "{refused:?}");
        assert_eq!(it.lost(), format!("refused={}", refused.len()));
        it.send(10..12);
        assert_eq!(it.sent()[10 - refused.len()..], [10, 11]);
        assert_eq!((it.net.snapshot().memory, it.net.ports()), (0, 2));
    }
}

#[test]
fn all_frames_may_be_refused() {
    let faults: Vec<_> = (0..10).map(|number| (number, Fault::Refused)).collect();
    let mut it = Trial::new(&faults, PLENTY);
    it.send(0..10);
    assert_eq!((it.sent(), it.lost()), (vec![], "refused=10".to_owned()));
    assert!(it.system.borrow().tried.iter().copied().eq(0..10), "each was tried once");
    it.send(10..11);
    assert_eq!(it.sent(), [10]);
}

#[test]
fn a_refused_frame_that_waited_is_dropped_alone() {
    for (room, refused) in [(0, &[0][..]), (0, &[0, 1, 5, 9]), (3, &[3, 4, 9]), (5, &[7])] {
        let faults: Vec<_> = refused.iter().map(|&number| (number, Fault::Refused)).collect();
        let mut it = Trial::new(&[], room);
        it.send(0..10);
        assert_eq!(it.sent(), (0..room).collect::<Vec<_>>());
        it.system.borrow_mut().faults = faults.into_iter().collect();
        // One at a time, so that each is once the first.
        for _ in 0..20 {
            it.make_room(1);
        }
        assert_eq!(it.sent(), without(10, refused), "{refused:?}");
        assert_eq!(it.lost(), format!("refused={}", refused.len()));
        assert_eq!(it.net.snapshot().memory, 0);
    }
}

#[test]
fn a_peer_that_is_down_costs_the_whole_run() {
    let mut it = Trial::new(&[(0, Fault::Down)], PLENTY);
    it.send(0..10);
    assert_eq!((it.sent(), it.lost()), (vec![], "down=10".to_owned()));
    assert_eq!(it.system.borrow().tried, [0], "the others are not tried");
    it.net.now += REST;
    it.send(10..13);
    assert_eq!((it.sent(), it.net.ports()), (vec![10, 11, 12], 2));
}

#[test]
fn a_peer_that_goes_down_costs_what_is_left() {
    let mut it = Trial::new(&[(4, Fault::Down)], PLENTY);
    it.send(0..10);
    it.make_room(PLENTY);
    assert_eq!((it.sent(), it.lost()), (vec![0, 1, 2, 3], "down=6".to_owned()));
    assert_eq!(it.net.snapshot().memory, 0);
}

#[test]
fn a_peer_that_is_down_costs_what_waited() {
    let mut it = Trial::new(&[], 2);
    it.send(0..10);
    it.system.borrow_mut().faults = [(2, Fault::Down)].into();
    it.make_room(PLENTY);
    assert_eq!((it.sent(), it.lost()), (vec![0, 1], "down=8".to_owned()));
    it.system.borrow_mut().faults.clear();
    it.net.now += REST;
    it.send(10..12);
    assert_eq!((it.sent(), it.net.snapshot().memory), (vec![0, 1, 10, 11], 0));
}

#[test]
fn a_broken_link_ends_its_port() {
    for (broken, room) in [(0, PLENTY), (4, PLENTY), (4, 2), (9, 0)] {
        let mut it = Trial::new(&[(broken, Fault::Broken)], room);
        it.send(0..10);
        it.make_room(PLENTY);
        let snapshot = it.net.snapshot();
        assert_eq!(it.sent(), (0..broken).collect::<Vec<_>>());
        assert_eq!(snapshot.departed.drops.to_string(), format!("closed={}", 10 - broken));
        assert_eq!((snapshot.ports.len(), snapshot.memory), (1, 0));
    }
}

/// The system takes no datagram that is longer than the buffer it has for those under way.
#[test]
fn what_the_system_refuses_of_a_run_is_dropped_alone() {
    let mut net = Net::new(Mode::Switch);
    let mut wire = net.unix();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
    ours.set_send_buffer_size(8192).unwrap();
    let far = Far::paired(theirs);
    net.attach(Box::new(DatagramLink::pair(ours).unwrap()));
    let lengths = [60, 40_000, 61, 62, 60_000, 63];
    let frames = lengths.map(|length| frame(0, 1, 0, length));
    for _ in 0..3 {
        wire.send(&records(&frames));
        net.settle();
        assert_eq!(far.read_all(), [0, 2, 3, 5].map(|number| frames[number].clone()));
    }
    assert_eq!((net.lost("wire2").as_str(), net.ports()), ("refused=6", 2));
    drop(far);
    wire.send(&record(&broadcast(0)));
    net.settle();
    assert_eq!((net.ports(), net.snapshot().departed.drops.to_string().as_str()), (1, "closed=1 refused=6"));
}
