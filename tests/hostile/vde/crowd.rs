//! Many clients: in a row, at once, and such that say nothing.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::lab::{Lab, join, names};
use crate::common::daemon::Table;
use crate::common::vde_client::Client;
use crate::common::wait::{Deadline, LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac};

/// Lets this process have descriptors for thousands of sockets.
fn allow_descriptors() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(8192.min(hard)), hard).expect("no more than the hard one");
}

/// The stations that the hub knows, and where: without how long ago that was.
fn stations(table: &Table) -> Vec<String> {
    let rows = table.fdb.iter().skip(1);
    rows.map(|row| row.split(" age ").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_thousand_clients_come_and_go() {
    let mut lab = Lab::new();
    let mut steady = lab.join_port(Some(500));
    steady.send(&frame(BROADCAST, mac(5), 60, 1));
    let (files, memory) = (lab.daemon.files(), lab.daemon.memory());
    let before = lab.daemon.table_with("three stations to be known", |table| {
        Some(stations(table)).filter(|rows| rows.iter().any(|row| row.ends_with("vde500")))
    });
    for round in 0..10 {
        let clients: Vec<Client> = (0..100)
            .map(|number| {
                // Some share a port with others, or with who is there for good.
                let port = [None, None, Some(7), Some(500), Some(0)][number % 5];
                lab.join_port(port)
            })
            .collect();
        lab.bystanders.talk();
        let sent = frame(mac(5), mac(0xe1), 60, round);
        lab.bystanders.one.send(&sent);
        steady.receive_if("a frame for its station", |frame| frame == sent);
        if round % 2 == 0 {
            assert_eq!(stations(&lab.daemon.table()), before, "they change nothing");
        }
        drop(clients);
    }
    lab.daemon.table_with("all to be gone", |table| (table.ports.len() == 3).then_some(()));
    lab.daemon.files_return_to(files);
    assert_eq!(stations(&lab.daemon.table()), before);
    assert_eq!(names(&lab.folder).len(), 2, "{:?}", names(&lab.folder));
    let grown = lab.daemon.memory().saturating_sub(memory);
    assert!(grown < 16 << 10, "{grown} KiB more than before");
    lab.bystanders.talk();
    let (told, lost) = (lab.daemon.count("port up"), lab.daemon.count("log lines were lost"));
    assert!(told == 1003 || lost > 0, "{told} connections were told of");
    drop(steady);
    lab.daemon.stop();
    assert!(!lab.folder.exists());
}

#[test]
fn a_thousand_clients_stay_and_no_more_than_there_may_be() {
    allow_descriptors();
    let mut lab = Lab::with(&["--max-ports", "1002"]);
    let mut clients: Vec<Client> = (0..1000).map(|_| lab.join()).collect();
    for port in [None, Some(1), Some(1024)] {
        assert!(lab.try_join(port).is_none(), "there is no place");
    }
    lab.daemon.line("all 1002 ports are in use; raise --max-ports");
    assert!(lab.daemon.memory() < 64 << 10, "{} KiB", lab.daemon.memory());
    assert!(lab.daemon.idles(), "it has nothing to do");
    lab.bystanders.talk();
    let sent = frame(BROADCAST, mac(0xe1), 1514, 1);
    lab.bystanders.one.send(&sent);
    for client in &mut clients {
        assert_eq!(client.receive(), sent);
    }
    let last = clients.pop().expect("there are 1000");
    drop(last);
    lab.daemon.table_with("one to go", |table| (table.ports.len() == 1001).then_some(()));
    clients.push(lab.join());
    assert!(lab.try_join(None).is_none(), "it is full again");
    lab.bystanders.drain();
    lab.bystanders.talk();
    drop(clients);
    lab.daemon.table_with("all to go", |table| (table.ports.len() == 2).then_some(()));
    lab.daemon.stop();
    assert!(!lab.folder.exists());
}

/// A connection that says nothing.
fn silent(folder: &Path) -> UnixStream {
    let control = UnixStream::connect(folder.join("ctl")).expect("it listens");
    control.set_nonblocking(true).expect("an open socket");
    control
}

/// Has the hub closed it?
fn is_ended(mut control: &UnixStream) -> bool {
    match control.read(&mut [0]) {
        Ok(octets) => octets == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn two_thousand_that_say_nothing_keep_nobody_out() {
    allow_descriptors();
    let mut lab = Lab::new();
    let files = lab.daemon.files();
    let start = Deadline::after(LIMIT);
    let mut silents = Vec::new();
    for number in 0..2000 {
        silents.push(silent(&lab.folder));
        if number % 100 == 0 {
            drop(lab.join());
            lab.bystanders.talk();
        }
    }
    let clients: Vec<Client> = (0..20).map(|_| lab.join()).collect();
    let open = silents.iter().filter(|control| !is_ended(control)).count();
    let elapsed = LIMIT - start.left().expect("it is quick");
    if elapsed < Duration::from_secs(3) {
        assert!((900..=1024).contains(&open), "{open} are still there");
        assert!(silents[..900].iter().all(is_ended), "the oldest go");
    }
    assert!(lab.daemon.files() <= files + 1024 + 2 * clients.len() + 1);
    lab.daemon.line("too many others came and said nothing");
    lab.bystanders.talk();
    // The others go by themselves.
    wait_for("all to be sent away", LIMIT, || silents.iter().all(is_ended).then_some(()));
    lab.bystanders.talk();
    drop(clients);
    lab.alone_again(files);
    assert!(lab.daemon.idles(), "it spins");
    lab.daemon.stop();
}

#[test]
fn without_descriptors_those_that_say_nothing_go_first() {
    let mut lab = Lab::by(r#"ulimit -n 40; exec "$@""#, &[]);
    let files = lab.daemon.files();
    let mut silents: Vec<UnixStream> = (0..100).map(|_| silent(&lab.folder)).collect();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(lab.join());
        silents.extend((0..20).map(|_| silent(&lab.folder)));
        lab.bystanders.talk();
    }
    drop(silents);
    // Now they are all taken by clients.
    let others: Vec<Client> = std::iter::from_fn(|| lab.try_join(None)).take(20).collect();
    assert!(others.len() < 20, "all found descriptors");
    clients.extend(others);
    lab.bystanders.talk();
    assert!(lab.daemon.idles(), "it spins");
    clients.pop();
    clients.pop();
    wait_for("there to be descriptors again", LIMIT, || lab.try_join(None));
    drop(clients);
    lab.alone_again(files);
    lab.daemon.stop();
}

#[test]
fn what_is_no_request_costs_nobody_anything() {
    let mut lab = Lab::new();
    let (files, memory) = (lab.daemon.files(), lab.daemon.memory());
    for seed in 0..200_u8 {
        for octets in [
            &[0xce][..],
            &[seed; 4],
            &[seed; 300],
            &[0xce, 0xfa, 0xed, 0xfe, seed],
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            let mut control = silent(&lab.folder);
            // The hub may be quicker to refuse than this to say all.
            let _ = control.write(octets);
            drop(control);
        }
        if seed % 50 == 0 {
            lab.bystanders.talk();
            drop(lab.join());
        }
    }
    lab.alone_again(files);
    assert!(lab.daemon.idles(), "it spins");
    let grown = lab.daemon.memory().saturating_sub(memory);
    assert!(grown < 8 << 10, "{grown} KiB more than before");
    assert_eq!(names(&lab.folder), ["ctl"]);
    let told = lab.daemon.count("refused");
    assert!((1..=16).contains(&told), "it was told {told} times");
    lab.daemon.stop();
}

/// All at once, as after a restart of whoever had started them.
#[test]
fn a_hundred_may_come_at_the_same_time() {
    let mut lab = Lab::new();
    let files = lab.daemon.files();
    let folder = lab.folder.clone();
    let threads: Vec<_> = (0..100)
        .map(|_| {
            let folder = folder.clone();
            std::thread::spawn(move || join(Client::come(&folder), None).is_some())
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().expect("it joins and leaves")));
    lab.alone_again(files);
    assert_eq!(names(&lab.folder), ["ctl"]);
    lab.daemon.stop();
}
