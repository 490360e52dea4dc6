//! What the hub says of clients that it refuses.

use std::fs;
use std::os::unix::net::UnixDatagram;

use nix::unistd::{Uid, chown, geteuid};

use super::lab::{Lab, answer, is_told};
use crate::common::hub::utf8;
use crate::common::net::have_namespaces;
use crate::common::vde_client::{Answer, Client, own_path, request, words};

/// What the hub says once a client has said `octets`.
fn complaint(lab: &Lab, octets: &[u8], hint: &str) -> String {
    let before = lab.daemon.count("refused");
    let mut client = Client::come(&lab.folder);
    client.say(octets);
    assert_eq!(answer(&mut client), Answer::Refused, "{hint}");
    fs::remove_file(&client.path).expect("its own file");
    let line = lab.daemon.line(hint);
    is_told(&lab.daemon, "refused", before + 1);
    line
}

#[test]
fn each_refusal_has_its_reason() {
    let mut lab = Lab::with(&["--log", "debug"]);
    let files = lab.daemon.files();
    let path = lab.folder.join("own");
    let good = request(None, &path, b"me");
    let with = |at: usize, octets: &[u8]| [&good[..at], octets, &good[at + octets.len()..]].concat();
    let letter = lab.folder.join("letter");
    fs::write(&letter, "letter").expect("a file");
    for (octets, hint) in [
        (words(&[0x1234_5678]), "no VDE request: it begins with 0x12345678"),
        (with(4, &words(&[2])), "version 2 of the request is not known"),
        (with(4, &words(&[4])), "version 4 of the request is not known"),
        (with(8, &words(&[7])), "a request of kind 7 is not known"),
        (with(12, &[2, 2]), "its address is of family 514"),
        (with(14, b"x"), "the path of its datagram socket is not absolute"),
        (request(None, &path, &[b'x'; 129]), "a request of 251 octets is too long"),
        (good.clone(), "own can't be used"),
        (request(Some(1025), &path, b"me"), "there is no port 1025; the highest is 1024"),
        (request(None, &letter, b"me"), "letter can't be used: it is no socket"),
    ] {
        let line = complaint(&lab, &octets, hint);
        assert!(line.contains(&format!("uid {} pid {}", geteuid(), std::process::id())), "{line}");
        assert!(line.contains(&format!("door=vde:{}", utf8(&lab.folder))), "{line}");
        assert_eq!(
            line.contains(": me: "),
            line.contains("own can't") || line.contains("letter") || line.contains("1025"),
            "{line}"
        );
    }
    lab.alone_again(files);
    assert_eq!(fs::read(&letter).expect("it is there"), b"letter");
    lab.daemon.stop();
}

#[test]
fn what_clients_say_can_not_forge_lines() {
    let lab = Lab::new();
    let mut client = Client::come(&lab.folder);
    let evil = "x\n[2026-01-01T00:00:00.000Z INFO ] port down\r\u{1b}[2J\u{202e}";
    client.say(&request(None, &client.path, evil.as_bytes()));
    assert!(matches!(answer(&mut client), Answer::Socket(_)));
    let line = lab.daemon.line("port up port=vde1");
    assert!(line.contains("x\u{fffd}[2026-01-01"), "{line}");
    assert!(!lab.daemon.log().contains(['\u{1b}', '\r', '\u{202e}']));
    // Nor can paths.
    let mut client = Client::come(&lab.folder);
    client.say(&request(None, &lab.folder.join("a\nb\u{1b}c"), b""));
    assert_eq!(answer(&mut client), Answer::Refused);
    assert!(lab.daemon.line("can't be used").contains("a\\nb\\u{1b}c"));
    lab.daemon.stop();
}

/// Who could make the hub send to others' sockets could make it its tool.
#[test]
fn a_client_can_name_nobody_elses_socket() {
    if !have_namespaces() {
        return;
    }
    let mut lab = Lab::new();
    let files = lab.daemon.files();
    let theirs = own_path(&lab.folder);
    let socket = UnixDatagram::bind(&theirs).expect("a socket");
    socket.set_nonblocking(true).expect("an open socket");
    chown(&theirs, Some(Uid::from_raw(4321)), None).expect("root may");
    complaint(&lab, &request(None, &theirs, b"me"), "it belongs to another user, uid 4321");
    lab.alone_again(files);
    assert!(socket.recv(&mut [0; 100]).is_err(), "it got something");
    assert!(theirs.exists());
    // The stream sockets of the hub are none of a client's either.
    for name in ["ctl", "../qhub/default/qhub.sock"] {
        let path = lab.folder.join(name);
        complaint(&lab, &request(None, &path, b"me"), &format!("{name} can't be used"));
    }
    lab.daemon.stop();
}

/// The hub's own sockets for clients are connected to these.
#[test]
fn a_client_can_not_name_the_socket_that_another_one_has() {
    let mut lab = Lab::new();
    let other = lab.join();
    let files = lab.daemon.files();
    let socket = other.data.peer_addr().expect("it is connected");
    let socket = socket.as_pathname().expect("it has a path");
    complaint(&lab, &request(None, socket, b"me"), "can't be used: Operation not permitted");
    lab.daemon.files_return_to(files);
    drop(other);
    lab.alone_again(files - 2);
    lab.daemon.stop();
}
