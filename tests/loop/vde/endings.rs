//! How clients leave, and how the switch does.

use std::fs;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;

use super::switch::{Switch, files, hear_all, parent};
use crate::net::{MS, Net};
use crate::vde_client::{Answer, Client};
use crate::wire::{broadcast, frame, record};

#[test]
fn what_a_client_has_sent_before_it_left_is_passed_on() {
    for count in [1, 64, 65, 130] {
        let (mut it, [one, two]) = Switch::introduced();
        let sent: Vec<_> = (0..count).map(|number| frame(0, 1, number, 60)).collect();
        sent.iter().for_each(|frame| one.send(frame));
        drop(one);
        it.net.settle();
        assert_eq!(two.read_all(), sent);
        assert_eq!((it.net.ports(), it.files()), (1, vec![file_of(&two), "ctl".to_owned()]));
    }
}

/// The name of the switch's own file for `client`.
fn file_of(client: &Client) -> String {
    let socket = client.data.peer_addr().expect("it is connected");
    let name = socket.as_pathname().and_then(|path| path.file_name()).expect("it has a name");
    name.to_string_lossy().into_owned()
}

#[test]
fn the_end_of_the_control_connection_is_the_end() {
    for how in [Shutdown::Write, Shutdown::Both] {
        let (mut it, [mut one, two]) = Switch::introduced();
        one.send(&frame(0, 1, 1, 60));
        one.control.shutdown(how).expect("it is connected");
        it.net.settle();
        assert_eq!(two.read_all(), [frame(0, 1, 1, 60)]);
        assert_eq!(it.net.ports(), 1, "{how:?}");
        assert!(one.is_let_go());
    }
}

#[test]
fn who_keeps_only_its_control_connection_is_found_out_by_the_next_frame() {
    let (mut it, [one, two]) = Switch::introduced();
    let Client { mut control, data, .. } = one;
    data.send(&frame(0, 1, 1, 60)).expect("room");
    drop(data);
    it.net.settle();
    assert_eq!((two.read_all(), it.net.ports()), (vec![frame(0, 1, 1, 60)], 2));
    two.send(&frame(1, 0, 2, 60));
    it.net.settle();
    assert_eq!(it.net.ports(), 1);
    assert_eq!(std::io::Read::read(&mut control, &mut [0]).expect("it is closed"), 0);
    assert_eq!(it.net.snapshot().departed.drops.to_string(), "closed=1");
}

#[test]
fn a_data_socket_that_hears_somebody_else_is_found_out() {
    let (mut it, [one, two]) = Switch::introduced();
    let other = it.folder.join("other");
    let _other = UnixDatagram::bind(&other).expect("a socket");
    one.data.connect(&other).expect("a socket");
    two.send(&frame(1, 0, 1, 60));
    it.net.settle();
    assert_eq!(it.net.ports(), 1);
    let three = it.join(None);
    three.send(&frame(0, 1, 1, 60));
    it.net.settle();
    assert_eq!(two.read_all(), [frame(0, 1, 1, 60)]);
}

#[test]
fn a_data_socket_that_takes_no_more_is_the_end_once_all_is_read() {
    let (mut it, [mut one, two]) = Switch::introduced();
    one.data.shutdown(Shutdown::Read).expect("it is connected");
    two.send(&frame(1, 0, 1, 60));
    one.send(&frame(0, 1, 1, 60));
    it.net.settle();
    assert_eq!((two.read_all(), it.net.ports()), (vec![frame(0, 1, 1, 60)], 1));
    assert!(one.is_let_go());
}

#[test]
fn what_a_client_says_behind_its_request_means_nothing() {
    let (mut it, [mut one, two]) = Switch::introduced();
    for round in 0..3 {
        // More than one read takes.
        one.say(&[0; 5000]);
        one.say(&one.request(Some(99)));
        one.send(&frame(0, 1, round, 60));
        hear_all(&mut it.net);
        assert_eq!((two.read_all(), it.net.ports()), (vec![frame(0, 1, round, 60)], 2));
        assert_eq!(one.answer(), Answer::None);
    }
    // Its end is found behind it.
    one.say(&[0; 100_000]);
    drop(one);
    hear_all(&mut it.net);
    assert_eq!(it.net.ports(), 1);
}

#[test]
fn what_waits_for_a_client_that_leaves_is_counted() {
    let (mut it, [one, two]) = Switch::introduced();
    let mut sent = 0;
    while it.net.snapshot().ports[1].queued_frames == 0 {
        one.send(&frame(0, 1, sent, 1514));
        sent += 1;
        it.net.settle();
    }
    let row = it.net.snapshot().ports[1].clone();
    drop(two);
    it.net.settle();
    let departed = it.net.snapshot().departed;
    assert_eq!(departed.tx_frames, row.counters.tx_frames);
    assert_eq!(departed.drops.total(), row.queued_frames);
    assert_eq!(it.net.snapshot().memory, 0);
}

#[test]
fn a_client_takes_its_own_files_with_it() {
    let mut it = Switch::new();
    // Some leave theirs to the end.
    let mut client = it.come();
    client.ask(None);
    it.net.settle();
    let Answer::Socket(socket) = client.answer() else { panic!("it is refused") };
    client.data.connect(&socket).expect("it is there");
    assert_eq!(it.files().len(), 3);
    drop(client);
    it.net.settle();
    assert_eq!(it.files(), ["ctl"]);

    // What has taken the place of either meanwhile stays.
    let mut client = it.come();
    client.ask(None);
    it.net.settle();
    let Answer::Socket(socket) = client.answer() else { panic!("it is refused") };
    client.plug_into(&socket);
    fs::remove_file(&socket).expect("a socket");
    for path in [&client.path, &socket] {
        fs::write(path, "letter").expect("a file");
    }
    let kept = it.files();
    drop(client);
    it.net.settle();
    assert_eq!((it.net.ports(), it.files()), (0, kept));
    // Nor is it in the way of others.
    it.join(None);
}

#[test]
fn at_its_end_the_switch_lets_everybody_go_and_leaves_nothing() {
    let (mut it, [mut one, mut two]) = Switch::introduced();
    let (mut guest, mut half) = (it.come(), it.come());
    half.say(&[0xce]);
    fs::remove_file(&guest.path).expect("its own file");
    fs::remove_file(&half.path).expect("its own file");
    it.net.settle();
    one.send(&frame(0, 1, 1, 60));
    it.net.hub.drain(it.net.now);
    assert!(!it.folder.join("ctl").exists(), "nobody comes any more");
    assert!(guest.is_let_go() && half.is_let_go());
    for _ in 0..100 {
        it.net.turn();
        it.net.now += MS;
        if it.net.hub.is_drained(it.net.now) {
            break;
        }
    }
    assert!(it.net.hub.is_drained(it.net.now));
    assert_eq!(two.read_all(), [frame(0, 1, 1, 60)], "what was sent before is passed on");
    let (parent, folder) = (it.folder.parent().expect("one").to_owned(), it.folder.clone());
    let Switch { net, .. } = &mut it;
    *net = Net::new(qhub::bridge::Mode::Switch);
    assert!(one.is_let_go() && two.is_let_go());
    assert!(!folder.exists() && files(&parent).is_empty(), "{:?}", files(&parent));
}

#[test]
fn a_folder_that_somebody_uses_is_kept() {
    let (mut it, [one]) = Switch::introduced();
    fs::write(it.folder.join("letter"), "letter").expect("a file");
    drop(one);
    it.net = Net::new(qhub::bridge::Mode::Switch);
    assert_eq!(it.files(), ["letter"]);
}

#[test]
fn a_folder_that_was_there_is_kept() {
    let parent = parent();
    let mut net = Net::new(qhub::bridge::Mode::Switch);
    net.open(&format!("vde:{}", parent.path().display()));
    let mut client = Client::come(parent.path());
    client.ask(None);
    net.settle();
    assert!(matches!(client.answer(), Answer::Socket(_)));
    drop((net, client));
    // The client's own file was not removed by whoever was killed.
    assert_eq!(files(parent.path()), [""; 0]);
    assert!(parent.path().exists());
}

/// Ports of one folder: the first of them has made it.
#[test]
fn a_folder_goes_with_the_last_port_of_it() {
    let mut it = Switch::new();
    it.net.open(&format!("vde:{},port-group=lan", it.folder.display()));
    assert_eq!(it.files(), ["ctl", "lan"]);
    let mut one = Client::come_to(&it.folder.join("lan"), &it.folder.join(".1-1"));
    one.ask(Some(3));
    let two = it.join(Some(3));
    let Answer::Socket(socket) = one.answer() else { panic!("it is refused") };
    one.plug_into(&socket);
    one.send(&broadcast(0));
    it.net.settle();
    // Each group has numbers of its own.
    assert_eq!(two.read_all(), [broadcast(0)]);
    let mut wire = it.net.unix();
    wire.send(&record(&broadcast(1)));
    it.net.settle();
    assert_eq!((one.read_all().len(), two.read_all().len()), (1, 1));
    let folder = it.folder.clone();
    it.net = Net::new(qhub::bridge::Mode::Switch);
    assert!(!folder.exists());
}
