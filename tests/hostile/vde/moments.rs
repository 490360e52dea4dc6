//! Clients that are killed, at every moment of their lives.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::lab::{Lab, answer, names};
use crate::common::daemon::Daemon;
use crate::common::hub::utf8;
use crate::common::vde_client::{Answer, Client, V3_LEN};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

/// How far a client gets.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Moment {
    /// It says so many octets of its request.
    Says(usize),
    /// It has asked.
    Asked,
    /// It has read the answer.
    Answered,
    /// It has connected its socket, whose file is still there.
    Connected,
    /// Its file is removed.
    Joined,
    /// It has sent something.
    Sent,
    /// Something waits for it.
    SentTo,
}

impl Moment {
    fn all() -> impl Iterator<Item = Self> {
        let says = [0, 1, 4, 7, 8, 12, 14, 60, V3_LEN - 1, V3_LEN].map(Self::Says);
        let others = [Self::Asked, Self::Answered, Self::Connected, Self::Joined, Self::Sent, Self::SentTo];
        says.into_iter().chain(others)
    }

    /// May nobody know yet that the file of a client's socket is one?
    fn is_early(self) -> bool {
        self < Self::Says(V3_LEN)
    }
}

/// A client's life, until it is killed.
fn live(lab: &mut Lab, until: Moment) -> Client {
    let mut client = Client::come(&lab.folder);
    if let Moment::Says(octets) = until {
        let request = client.request(None);
        client.say(&request[..octets]);
        return client;
    }
    client.ask(None);
    if until < Moment::Answered {
        return client;
    }
    let Answer::Socket(socket) = answer(&mut client) else { panic!("it was refused") };
    if until >= Moment::Joined {
        client.plug_into(&socket);
    } else if until >= Moment::Connected {
        client.data.connect(&socket).expect("it is there");
    }
    if until == Moment::Sent {
        (0..100).for_each(|seed| client.send(&frame(mac(9), mac(3), 60, seed)));
    } else if until == Moment::SentTo {
        let sent = frame(BROADCAST, mac(4), 60, 1);
        lab.bystanders.one.send(&sent);
        client.receive_if("a frame", |frame| frame == sent);
        lab.bystanders.one.send(&sent);
    }
    client
}

/// What a killed process has open is closed in no certain order.
fn kill(client: Client, is_data_first: bool) {
    let Client { control, data, .. } = client;
    if is_data_first {
        drop(data);
        drop(control);
    } else {
        drop(control);
        drop(data);
    }
}

/// Waits until nothing but `left` is in the folder.
fn is_left(folder: &Path, left: &[String]) {
    let mut found = Vec::new();
    let what = format!("the folder to have {left:?}");
    let found = wait_for(&what, LIMIT, || {
        found = names(folder);
        (found.len() <= left.len()).then(|| found.clone())
    });
    assert_eq!(found, left);
}

/// The name of its file.
fn name(client: &Client) -> String {
    utf8(client.path.file_name().expect("a name").as_ref()).to_owned()
}

#[test]
fn a_client_may_be_killed_at_any_moment() {
    let mut lab = Lab::new();
    let files = lab.daemon.files();
    let mut left = vec!["ctl".to_owned()];
    for moment in Moment::all() {
        for is_data_first in [false, true] {
            let client = live(&mut lab, moment);
            if moment.is_early() {
                left.push(name(&client));
                left.sort();
            }
            kill(client, is_data_first);
            lab.alone_again(files);
            is_left(&lab.folder, &left);
        }
    }
    assert!(lab.daemon.idles(), "it spins");
    let client = lab.join();
    let sent = frame(BROADCAST, mac(3), 60, 1);
    client.send(&sent);
    assert_eq!(lab.bystanders.one.receive(), sent);
    drop(client);
    lab.alone_again(files);
    lab.daemon.stop();

    // What nobody could know of is removed at the next start; then the folder is not the hub's own any more.
    let spec = format!("vde:{}", utf8(&lab.folder));
    let daemon = Daemon::start(lab.runtime.path(), &[&spec]);
    assert_eq!(names(&lab.folder), ["ctl"]);
    daemon.stop();
    assert_eq!(names(&lab.folder), [""; 0]);
}

#[test]
fn clients_may_be_dead_before_the_hub_looks() {
    let mut lab = Lab::new();
    let files = lab.daemon.files();
    lab.daemon.signal(Signal::SIGSTOP);
    let mut left = vec!["ctl".to_owned()];
    let mut sent = 0;
    for turn in 0..3 {
        for moment in Moment::all().filter(|moment| *moment <= Moment::Asked) {
            let client = live(&mut lab, moment);
            if moment.is_early() {
                left.push(name(&client));
            } else {
                sent += 1;
            }
            kill(client, turn == 1);
        }
    }
    left.sort();
    lab.daemon.signal(Signal::SIGCONT);
    lab.alone_again(files);
    // Who has asked for a port has left a file that says whose it was.
    is_left(&lab.folder, &left);
    assert!(sent > 0);
    lab.daemon.stop();
}

/// A hub that has joined another one is a real client.
#[test]
fn a_real_client_may_be_killed() {
    let mut lab = Lab::new();
    let files = lab.daemon.files();
    let spec = format!("connect:vde:{}", utf8(&lab.folder));
    for _ in 0..10 {
        let mut other = Daemon::start(lab.runtime.path(), &["--name", "other", &spec]);
        let mut guest = other.connect();
        settle(&mut guest, &mut lab.bystanders.one);
        other.signal(Signal::SIGKILL);
        assert!(!other.exit().success());
        lab.alone_again(files);
        is_left(&lab.folder, &["ctl".to_owned()]);
    }
    // It may as well die while it joins.
    for number in 0..40 {
        let args = ["--name", "other", "--no-tcp", &spec];
        let mut other =
            Daemon::launch(lab.runtime.path(), r#"exec "$@""#, &args, std::process::Stdio::null());
        crate::common::wait::pause(Duration::from_micros(250) * number);
        other.signal(Signal::SIGKILL);
        other.exit();
    }
    lab.alone_again(files);
    let left = names(&lab.folder);
    assert!(left.iter().all(|name| name == "ctl" || name.starts_with('.')), "{left:?}");
    lab.daemon.stop();
    for name in left.iter().filter(|name| *name != "ctl") {
        let _ = fs::remove_file(lab.folder.join(name));
    }
}
