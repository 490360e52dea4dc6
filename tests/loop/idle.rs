//! What ports cost that have nothing to say.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use mio::{Interest, Registry, Token};
use qhub::batch::{FrameBatch, Run, Taken};
use qhub::bridge::Mode;
use qhub::link::{Link, Received, SendError, StreamLink};

use crate::net::{Net, allow_descriptors};
use crate::wire::{LENGTH, broadcast, frame, record, records, socketpair};

/// A link that counts how often it is asked to receive.
#[derive(Debug)]
struct Counted {
    link: StreamLink,
    receives: Rc<Cell<usize>>,
}

impl Link for Counted {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.link.register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.link.reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.link.deregister(registry)
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        self.receives.set(self.receives.get() + 1);
        self.link.receive(batch)
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.link.send(run)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.link.flush()
    }

    fn is_cut(&self) -> bool {
        self.link.is_cut()
    }

    fn max_frame(&self) -> usize {
        self.link.max_frame()
    }

    fn patience(&self) -> Option<Duration> {
        self.link.patience()
    }

    fn stop_receiving(&mut self) -> bool {
        self.link.stop_receiving()
    }

    fn is_at_boundary(&self) -> bool {
        self.link.is_at_boundary()
    }
}

#[test]
fn a_thousand_idle_ports_cost_a_busy_pair_nothing() {
    allow_descriptors();
    let mut net = Net::new(Mode::Switch);
    let counted = |net: &mut Net| {
        let (link, wire) = socketpair();
        let receives = Rc::new(Cell::new(0));
        net.attach(Box::new(Counted { link, receives: Rc::clone(&receives) }));
        (wire, receives)
    };
    let mut idle: Vec<_> = (0..1000).map(|_| counted(&mut net)).collect();
    let (mut from, from_receives) = counted(&mut net);
    let (mut to, to_receives) = counted(&mut net);
    from.send(&record(&broadcast(0)));
    to.send(&record(&broadcast(1)));
    net.settle();
    to.read();
    let before = from_receives.get();
    for number in 0..100 {
        let bytes = record(&frame(0, 1, number, LENGTH));
        from.send(&bytes);
        net.turn();
        assert_eq!(to.read(), bytes, "one turn");
        assert!(!net.is_due(), "and no more");
    }
    assert_eq!(from_receives.get() - before, 100, "each burst is one short read");
    assert_eq!(to_receives.get(), 1);
    assert!(idle.iter().all(|(_, receives)| receives.get() == 0), "an idle port is never read");
    assert!(idle.iter_mut().all(|(wire, _)| wire.read() == records(&[broadcast(0), broadcast(1)])));
}
