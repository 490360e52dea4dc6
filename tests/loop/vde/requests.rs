//! What a client may ask for, and how.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use qhub::bridge::Mode;

use super::switch::{Switch, parent};
use crate::net::{NS, Net};
use crate::vde_client::{Answer, Client, DESCRIPTION, V1_LEN, V3_LEN, old_request, request, words};
use crate::wire::broadcast;

/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(3);

/// A request, and how many octets of it have to come first.
fn forms(client: &Client) -> [(Vec<u8>, usize); 4] {
    [
        (client.request(None), V3_LEN),
        (client.request(Some(7)), V3_LEN),
        (old_request(false, &client.path, DESCRIPTION), V1_LEN),
        (old_request(true, &client.path, DESCRIPTION), V1_LEN),
    ]
}

#[test]
fn a_request_may_come_octet_by_octet() {
    for form in 0..4 {
        let mut it = Switch::new();
        let mut client = it.come();
        let (request, needed) = forms(&client)[form].clone();
        for (at, octet) in request.iter().enumerate() {
            client.say(&[*octet]);
            it.net.settle();
            let answer = client.answer();
            if at + 1 == needed {
                let Answer::Socket(socket) = answer else { panic!("{answer:?}") };
                client.plug_into(&socket);
            } else {
                assert_eq!(answer, Answer::None, "after {} octets", at + 1);
            }
        }
        let other = it.join(None);
        client.send(&broadcast(1));
        it.net.settle();
        assert_eq!(other.read_all(), [broadcast(1)]);
        assert_eq!(it.net.ports(), 2);
    }
}

#[test]
fn a_request_may_come_in_two_pieces() {
    for cut in 1..V3_LEN + DESCRIPTION.len() {
        let mut it = Switch::new();
        let mut client = it.come();
        let request = client.request(None);
        client.say(&request[..cut]);
        it.net.settle();
        assert_eq!(client.answer() != Answer::None, cut >= V3_LEN, "{cut} octets");
        client.say(&request[cut..]);
        it.net.settle();
        assert_eq!((it.net.ports(), it.net.is_due()), (1, false));
    }
}

/// What comes with the path is the description; control characters and what is no text are replaced in it.
#[test]
fn a_description_is_shown_as_far_as_it_is_text() {
    let long = [b'x'; 128];
    let shown_long = "x".repeat(128);
    for (description, shown) in [
        (&b""[..], ""),
        (b"vdeplug: user=root pid=12693", "vdeplug: user=root pid=12693"),
        (
            b"one\n1000 Success\r\n\x1b[2J\0two\xff\x7f",
            "one\u{fffd}1000 Success\u{fffd}\u{fffd}\u{fffd}[2J\u{fffd}two\u{fffd}\u{fffd}",
        ),
        ("user=\u{202e}toor".as_bytes(), "user=\u{fffd}toor"),
        (b"QEMU user=root pid=7\0\0\0", "QEMU user=root pid=7"),
        (&long, &shown_long),
    ] {
        for is_old in [false, true] {
            let mut it = Switch::new();
            let mut client = it.come();
            let request = if is_old {
                old_request(false, &client.path, description)
            } else {
                request(None, &client.path, description)
            };
            client.say(&request);
            it.net.settle();
            assert!(matches!(client.answer(), Answer::Socket(_)));
            let peer = it.net.snapshot().ports[0].peer.clone();
            let gap = if shown.is_empty() { "" } else { ": " };
            assert_eq!(peer, format!("uid {} pid {}{gap}{shown}", geteuid(), std::process::id()));
        }
    }
}

#[test]
fn what_can_not_be_asked_for_is_refused_at_once() {
    let mut it = Switch::new();
    let path = it.folder.join(".1-1");
    let own = UnixDatagram::bind(&path).expect("a socket");
    let good = request(None, &path, b"");
    let with = |at: usize, octets: &[u8]| [&good[..at], octets, &good[at + octets.len()..]].concat();
    for (what, octets) in [
        ("another magic number", with(0, &[0])),
        ("another magic number, and no more", words(&[0xfeed_fac0])),
        ("version 2", with(4, &words(&[2]))),
        ("version 2, and no more", words(&[0xfeed_face, 2])),
        ("version 4", with(4, &words(&[4]))),
        ("the last version", with(4, &words(&[u32::MAX]))),
        ("kind 2", with(8, &words(&[2]))),
        ("kind 255 of port 5", with(8, &words(&[0x5ff]))),
        ("family 0", with(12, &[0, 0])),
        ("family 2", with(12, &2_u16.to_ne_bytes())),
        ("no path", with(14, &[0; 108])),
        ("an abstract path", with(14, &[0])),
        ("a relative path", with(14, b".")),
        ("129 octets of description", request(None, &path, &[b'x'; 129])),
        ("an old one with 129", old_request(false, &path, &[b'x'; 129])),
        ("a screenful", [b'x'; 4000].to_vec()),
    ] {
        assert_eq!(it.answer_to(&octets), Answer::Refused, "{what}");
        assert_eq!(it.net.ports(), 0);
    }
    assert_eq!(it.files(), [".1-1", "ctl"]);
    assert!(matches!(it.answer_to(&good), Answer::Socket(_)), "nothing else was wrong");
    drop(own);
}

/// A client that asks with the path of something else.
fn refused(it: &mut Switch, what: &str, path: &Path) {
    assert_eq!(it.answer_to(&request(None, path, b"")), Answer::Refused, "{what}");
    assert_eq!(it.net.ports(), 0);
}

#[test]
fn what_is_no_socket_for_a_client_is_refused_at_once() {
    let mut it = Switch::new();
    let path = |name: &str| it.folder.join(name);
    let [none, letter, link, loops, stream, dead, other] =
        ["none", "letter", "link", "loops", "stream", "dead", "other"].map(path);
    fs::write(&letter, "letter").expect("a file");
    symlink(&other, &link).expect("a link");
    symlink(&loops, &loops).expect("a link");
    let _stream = UnixListener::bind(&stream).expect("a socket");
    drop(UnixDatagram::bind(&dead).expect("a socket"));
    let theirs = UnixDatagram::bind(&other).expect("a socket");
    let folder = it.folder.clone();
    let through_letter = letter.join("x");
    let longest = PathBuf::from(format!("/{}", "x".repeat(107)));
    for (what, path) in [
        ("none", &none),
        ("a letter", &letter),
        ("what is not below a letter", &through_letter),
        ("a folder", &folder),
        ("a link to a socket", &link),
        ("a link to itself", &loops),
        ("a socket of streams", &stream),
        ("a dead socket", &dead),
        ("a path without a zero behind it", &longest),
        ("a descriptor of the switch's", &PathBuf::from("/proc/self/fd/0")),
        ("a device", &PathBuf::from("/dev/null")),
    ] {
        refused(&mut it, what, path);
    }
    // It hears somebody else already.
    theirs.connect(&dead).expect_err("it is dead");
    let third = UnixDatagram::bind(it.folder.join("third")).expect("a socket");
    theirs.connect(it.folder.join("third")).expect("a socket");
    refused(&mut it, "a socket that is connected", &other);
    drop(third);
    assert_eq!(fs::read(&letter).expect("it is there"), b"letter");
    assert_eq!(it.files(), ["ctl", "dead", "letter", "link", "loops", "other", "stream", "third"]);
    it.join(None);
}

#[test]
fn a_socket_anywhere_will_do() {
    let mut it = Switch::new();
    let elsewhere = parent();
    let mut client = Client::come_to(&it.folder.join("ctl"), &elsewhere.path().join("mine"));
    client.ask(None);
    it.net.settle();
    assert!(matches!(client.answer(), Answer::Socket(_)));
    drop(client);
    it.net.settle();
    assert!(elsewhere.path().join("mine").exists(), "what is elsewhere is not ours to remove");
    assert_eq!(it.files(), ["ctl"]);
}

#[test]
fn who_says_nothing_for_three_seconds_is_sent_away() {
    for said in [0, 1, 4, 13, V3_LEN - 1] {
        let mut it = Switch::new();
        let start = it.net.now;
        let mut client = it.come();
        it.net.settle();
        // What comes late does not gain time.
        it.net.now = start + PATIENCE - NS;
        let request = client.request(None);
        client.say(&request[..said]);
        it.net.settle();
        assert_eq!((client.answer(), it.net.hub.wake()), (Answer::None, Some(start + PATIENCE)));
        it.net.now = start + PATIENCE;
        it.net.settle();
        assert_eq!((client.answer(), it.net.hub.wake()), (Answer::Refused, None), "after {said} octets");
    }
}

#[test]
fn who_speaks_at_the_last_moment_is_served() {
    let mut it = Switch::new();
    let start = it.net.now;
    let mut client = it.come();
    let request = client.request(None);
    client.say(&request[..50]);
    it.net.settle();
    it.net.now = start + PATIENCE - NS;
    client.say(&request[50..]);
    it.net.settle();
    assert!(matches!(client.answer(), Answer::Socket(_)));
    // From now on it may be silent for ever.
    it.net.now = start + 1000 * PATIENCE;
    it.net.settle();
    assert_eq!((client.answer(), it.net.ports()), (Answer::None, 1));
}

/// Each has its own time.
#[test]
fn guests_do_not_wait_for_each_other() {
    let mut it = Switch::new();
    let start = it.net.now;
    let mut first = it.come();
    it.net.settle();
    it.net.now = start + PATIENCE / 2;
    let mut second = it.come();
    it.net.settle();
    let _third = it.join(None);
    it.net.now = start + PATIENCE;
    it.net.settle();
    assert_eq!((first.answer(), second.answer()), (Answer::Refused, Answer::None));
    second.ask(None);
    it.net.settle();
    assert!(matches!(second.answer(), Answer::Socket(_)));
    assert_eq!(it.net.hub.wake(), None);
}

#[test]
fn of_too_many_silent_ones_the_oldest_goes() {
    crate::net::allow_descriptors();
    let mut it = Switch::new();
    let come = |it: &mut Switch| {
        let control = UnixStream::connect(it.folder.join("ctl")).expect("it listens");
        control.set_nonblocking(true).expect("an open socket");
        it.net.turn();
        control
    };
    // All at the same time, as far as the hub knows.
    let mut guests: Vec<_> = (0..1024).map(|_| come(&mut it)).collect();
    it.net.settle();
    let is_gone = |control: &UnixStream| {
        let mut control = control;
        matches!(control.read(&mut [0]), Ok(0))
    };
    assert!(!guests.iter().any(is_gone), "so many there may be");
    let client = it.join(None);
    assert_eq!(guests.iter().filter(|guest| is_gone(guest)).count(), 1);
    assert!(is_gone(&guests[0]));
    guests.push(come(&mut it));
    it.net.settle();
    assert_eq!(guests.iter().position(|guest| !is_gone(guest)), Some(1), "there was a place");
    guests.push(come(&mut it));
    it.net.settle();
    assert_eq!(guests.iter().position(|guest| !is_gone(guest)), Some(2));
    client.send(&broadcast(0));
    it.net.settle();
    assert_eq!(it.net.counters(0).rx_frames, 1);
    drop(guests);
    it.net.settle();
    assert_eq!(it.net.ports(), 1);
}

#[test]
fn who_leaves_before_it_has_asked_is_forgotten() {
    for said in [0, 1, 60, V3_LEN - 1] {
        let mut it = Switch::new();
        let mut client = it.come();
        let request = client.request(None);
        client.say(&request[..said]);
        it.net.settle();
        assert!(it.net.hub.wake().is_some());
        drop(client);
        it.net.settle();
        assert_eq!((it.net.ports(), it.net.hub.wake()), (0, None));
    }
}

#[test]
fn who_leaves_without_waiting_for_the_answer_is_gone() {
    for is_seen_first in [false, true] {
        let mut it = Switch::new();
        let mut client = it.come();
        client.ask(None);
        if is_seen_first {
            it.net.settle();
            assert_eq!(it.net.ports(), 1);
        }
        drop(client);
        it.net.settle();
        assert_eq!((it.net.ports(), it.net.hub.wake()), (0, None));
        assert_eq!(it.files(), ["ctl"], "what a dead client has left is removed with it");
    }
}

/// As it is for a moment while a killed client's descriptors are closed one after the other.
#[test]
fn who_has_only_its_data_socket_left_leaves_no_file() {
    let mut it = Switch::new();
    let mut client = it.come();
    client.ask(None);
    let Client { control, data, .. } = client;
    drop(control);
    it.net.settle();
    assert_eq!((it.net.ports(), it.files()), (0, vec!["ctl".to_owned()]));
    drop(data);
}

#[test]
fn a_full_hub_refuses_until_there_is_a_place() {
    let mut it = Switch::within(Net::with_room(Mode::Switch, 2), "");
    let first = it.join(None);
    let _second = it.join(None);
    for port in [None, Some(0), Some(1), Some(9)] {
        assert!(it.try_join(port).is_none());
    }
    assert_eq!((it.net.ports(), it.files().len()), (2, 3));
    drop(first);
    it.net.settle();
    it.join(Some(9));
}
