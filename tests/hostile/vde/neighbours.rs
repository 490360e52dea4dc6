//! Clients that do not read, or flood, and those beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::lab::Lab;
use crate::common::daemon::Daemon;
use crate::common::hub::utf8;
use crate::common::vde_client::Client;
use crate::common::wait::{Deadline, LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

/// What it does.
type Act = Box<dyn FnMut() + Send>;

/// Keeps doing what misbehaves, until it is stopped.
struct Nuisance {
    done: Arc<AtomicBool>,
    acts: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Nuisance {
    fn start(mut act: impl FnMut() + Send + 'static) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let acts = Arc::new(AtomicU64::new(0));
        let (until, count) = (Arc::clone(&done), Arc::clone(&acts));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                act();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { done, acts, thread }
    }

    /// The longest that two bystanders wait for each other while it acts so often.
    fn disturbs(&self, lab: &mut Lab, acts: u64) -> Duration {
        let mut longest = longest_talk(lab, 20);
        let start = Deadline::after(LIMIT);
        while self.acts.load(Ordering::Relaxed) < acts {
            longest = longest.max(longest_talk(lab, 1));
            assert!(start.left().is_some(), "it does not act");
        }
        longest
    }

    fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only sends");
    }
}

/// The longest that two bystanders wait for a frame each, of so many.
fn longest_talk(lab: &mut Lab, talks: usize) -> Duration {
    (0..talks)
        .map(|_| {
            let start = Deadline::after(LIMIT);
            lab.bystanders.talk();
            LIMIT - start.left().expect("it is quicker")
        })
        .max()
        .expect("some")
}

#[test]
fn a_client_that_never_reads_costs_a_live_one_nothing() {
    let lab = Lab::new();
    let [mut live, mut dead, mut from] = [(); 3].map(|()| lab.join());
    for (number, client) in [(0xa1, &mut live), (0xa2, &mut dead)] {
        client.send(&frame(BROADCAST, mac(number), 60, 0));
    }
    settle(&mut from, &mut live);
    // To either in turn: whoever sends stands still while the dead one is waited for.
    let start = Deadline::after(LIMIT);
    for number in 0..3000_usize {
        let seed = u8::try_from(number % 251).expect("an octet");
        from.send(&frame(mac(0xa2), mac(0xa3), 1514, seed));
        let sent = frame(mac(0xa1), mac(0xa3), 100 + number % 1000, seed);
        from.send(&sent);
        assert_eq!(live.receive(), sent, "frame {number}");
    }
    let elapsed = LIMIT - start.left().expect("it is quicker");
    let table = lab.daemon.table();
    let [live_row, dead_row] = [table.port("vde1"), table.port("vde2")];
    assert_eq!((live_row.dropped, live_row.queued_frames), (0, 0), "{live_row:?}");
    assert!(dead_row.dropped_for("queue_full") > 1000, "{dead_row:?}");
    assert_eq!(dead_row.dropped, dead_row.dropped_for("queue_full"), "{dead_row:?}");
    // 5 ms for a batch while its budget lasts, which is a twentieth of the time.
    assert!(elapsed < Duration::from_secs(3), "it took {elapsed:?}");
    lab.daemon.stop();
}

/// Of a flood the live one gets all, and the dead one what fits.
#[test]
fn a_flood_reaches_a_live_client_whole_beside_one_that_never_reads() {
    let lab = Lab::new();
    let [mut live, mut dead, mut from] = [(); 3].map(|()| lab.join());
    settle(&mut from, &mut live);
    let rounds = 3000_usize;
    for number in 0..rounds {
        let sent = [frame(BROADCAST, mac(0xa3), 1500, 1), number.to_be_bytes().to_vec()].concat();
        from.send(&sent);
        assert_eq!(live.receive(), sent);
    }
    let row = lab.daemon.table().port("vde2").clone();
    assert!(row.dropped_for("queue_full") > 100, "{row:?}");
    // It wakes up, and gets what waited; the next one comes behind.
    let mut last = None;
    let mut count = 0;
    while let Some(frame) = dead.try_receive(Duration::from_millis(200)) {
        let number = frame.last_chunk().map(|number| usize::from_be_bytes(*number));
        if frame.len() > 1500 {
            assert!(number > last, "in order");
            last = number;
        }
        count += 1;
    }
    let row = lab.daemon.table().port("vde2").clone();
    assert_eq!((row.queued_frames, row.tx_frames), (0, count), "{row:?}");
    from.send(&frame(BROADCAST, mac(0xa3), 60, 9));
    assert_eq!(dead.receive(), frame(BROADCAST, mac(0xa3), 60, 9));
    lab.daemon.stop();
}

#[test]
fn a_stopped_client_goes_on_where_it_was() {
    let mut lab = Lab::new();
    let spec = format!("connect:vde:{}", utf8(&lab.folder));
    // A hub that has joined is a process that can be stopped.
    let other = Daemon::start(lab.runtime.path(), &["--name", "other", &spec]);
    let mut guest = other.connect();
    settle(&mut guest, &mut lab.bystanders.one);
    lab.bystanders.drain();
    let files = lab.daemon.files();
    other.signal(Signal::SIGSTOP);
    for number in 0..2000_usize {
        let sent = [frame(BROADCAST, mac(0xe1), 1500, 1), number.to_be_bytes().to_vec()].concat();
        lab.bystanders.one.send(&sent);
        assert_eq!(lab.bystanders.other.receive(), sent);
    }
    assert!(lab.daemon.idles(), "it spins");
    assert!(longest_talk(&mut lab, 50) < Duration::from_millis(500));
    let row = lab.daemon.table().port("vde1").clone();
    assert!(row.queued_frames > 0 && row.dropped == row.dropped_for("queue_full"), "{row:?}");
    other.signal(Signal::SIGCONT);
    let row = lab.daemon.table_with("all that waited to be sent", |table| {
        Some(table.port("vde1").clone()).filter(|row| row.queued_frames == 0)
    });
    assert_eq!(lab.daemon.files(), files);
    assert!(row.tx_frames > 100);
    let sent = frame(BROADCAST, mac(0xe1), 61, 7);
    lab.bystanders.one.send(&sent);
    guest.receive_if("a frame after all that waited", |frame| frame == sent);
    other.stop();
    lab.daemon.stop();
}

/// Whatever one client sends as fast as it can, others are heard.
#[test]
fn floods_of_nonsense_keep_nobody_from_being_heard() {
    let mut lab = Lab::new();
    let files = lab.daemon.files();
    let folder = lab.folder.clone();
    let joined = || lab.join();
    let say = |octets: Vec<u8>| {
        let mut client = joined();
        move || {
            // It is full while the hub does something else.
            let _ = std::io::Write::write(&mut client.control, &octets);
            thread::yield_now();
        }
    };
    let send = |octets: Vec<u8>| {
        let client = joined();
        move || {
            client.try_send(&octets);
            thread::yield_now();
        }
    };
    let nuisances: [(&str, Act); 7] = [
        ("noise on the control connection", Box::new(say(vec![0; 1024]))),
        ("an octet at a time there", Box::new(say(vec![0]))),
        ("empty datagrams", Box::new(send(vec![]))),
        ("runts", Box::new(send(vec![1; 13]))),
        ("frames to nobody", Box::new(send(frame(mac(0x99), mac(0x98), 60, 1)))),
        ("frames that are too long", Box::new(send(vec![1; 69_633]))),
        ("connections", Box::new(move || drop(std::os::unix::net::UnixStream::connect(folder.join("ctl"))))),
    ];
    for (what, act) in nuisances {
        let nuisance = Nuisance::start(act);
        let longest = nuisance.disturbs(&mut lab, 2000);
        nuisance.stop();
        assert!(longest < Duration::from_secs(1), "{what}: they waited {longest:?}");
        lab.bystanders.drain();
    }
    lab.alone_again(files);
    assert!(lab.daemon.idles(), "it spins");
    lab.daemon.stop();
}

/// Clients that come and go as fast as they can.
#[test]
fn a_storm_of_clients_disturbs_nobody() {
    let mut lab = Lab::new();
    let files = lab.daemon.files();
    let folder = lab.folder.clone();
    let nuisance = Nuisance::start(move || {
        super::lab::join(Client::come(&folder), None);
    });
    let longest = nuisance.disturbs(&mut lab, 300);
    nuisance.stop();
    assert!(longest < Duration::from_secs(1), "they waited {longest:?}");
    lab.alone_again(files);
    wait_for("their files to go", LIMIT, || (super::lab::names(&lab.folder) == ["ctl"]).then_some(()));
    lab.daemon.stop();
}
