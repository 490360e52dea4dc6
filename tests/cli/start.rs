//! How it starts: on its defaults, beside others, and where it can't.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Stdio;
use std::time::Duration;

use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::{folder, utf8};
use crate::common::refusal::{refusal, refusal_by};
use crate::common::wire::{Station, Wire, settle};

#[test]
fn it_prints_what_to_paste_and_the_same_again_after_a_restart() {
    let runtime = folder();
    let mut texts = Vec::new();
    for args in [&["tcp:0"][..], &["run", "tcp:0"], &["--hub"]] {
        let args = [args, &["--no-tcp"]].concat();
        let daemon = Daemon::launch(runtime.path(), r#"exec "$@""#, &args, Stdio::null()).served();
        texts.push(daemon.stdout());
        daemon.stop();
    }
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("-netdev ")).map(|line| line.trim().to_owned()).collect()
    };
    let socket = runtime.path().join("qhub/default/qhub.sock");
    for text in &texts {
        for line in &lines(text)[..2] {
            let (device, netdev) = line.split_once(" -netdev ").expect("two arguments");
            assert!(device.starts_with("-device virtio-net-pci,netdev=n0,mac="), "{line}");
            assert_eq!(netdev, format!("stream,id=n0,addr.type=unix,addr.path={}", utf8(&socket)));
        }
        assert!(text.contains("reconnect-ms=") && text.contains("reconnect=1"), "{text}");
    }
    assert!(lines(&texts[0])[2].contains(" -netdev socket,id=n0,connect=127.0.0.1:"), "{}", texts[0]);
    assert!(texts[0].contains("any user of this host may join a TCP port"), "{}", texts[0]);
    let mac =
        |text: &str, line: usize| lines(text)[line].split("mac=").nth(1).map(|mac| mac[..17].to_owned());
    for line in 0..3 {
        assert_eq!(mac(&texts[0], line), mac(&texts[1], line), "after a restart");
    }
    assert_ne!(mac(&texts[0], 0), mac(&texts[0], 1));
    assert_ne!(mac(&texts[0], 1), mac(&texts[0], 2));
    assert_eq!(lines(&texts[2]).len(), 2, "{}", texts[2]);
    assert!(texts[1].contains("switch 'default'") && texts[2].contains("hub 'default'"));
}

#[test]
fn a_taken_default_port_is_a_warning() {
    let runtime = folder();
    // Whoever has it, it is taken.
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 5555));
    let daemon = Daemon::launch(runtime.path(), r#"exec "$@""#, &[], Stdio::null()).served();
    let line = daemon.line("TCP port 5555 is taken");
    assert!(line.contains("WARN") && line.contains("--no-tcp"), "{line}");
    assert!(!daemon.stdout().contains(",connect="), "it does not serve TCP");
    Bystanders::join(&daemon).talk();
    daemon.stop();
}

#[test]
fn a_taken_port_that_was_asked_for_is_an_error() {
    let runtime = folder();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("its address").port();
    let line = refusal(runtime.path(), &[&format!("tcp:{port}")]);
    assert_eq!(
        line,
        format!(
            "qhub: port tcp:127.0.0.1:{port}: TCP port {port} is taken; stop the program that has it or choose another"
        )
    );
    let line = refusal(runtime.path(), &["tcp:192.0.2.1:0"]);
    assert!(line.contains("192.0.2.1 is no address of this host"), "{line}");
    let line = refusal(runtime.path(), &["tcp:no-such-host.invalid:1"]);
    assert!(line.contains("find host 'no-such-host.invalid'; write its address"), "{line}");
    assert!(!runtime.path().join("qhub/default/qhub.sock").exists(), "it left a socket file behind");
}

#[test]
fn a_port_that_was_just_left_is_free_again() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &["tcp:0"]);
    let address = daemon.tcp();
    let (mut one, mut other) = (Wire::tcp(address), Wire::tcp(address));
    settle(&mut one, &mut other);
    // The hub closes first, so that its side of the connections lingers.
    daemon.stop();
    let daemon = Daemon::start(runtime.path(), &[&format!("tcp:{}", address.port())]);
    let (mut one, mut other) = (Wire::tcp(address), Wire::tcp(address));
    settle(&mut one, &mut other);
    daemon.stop();
}

#[test]
fn instances_have_their_own_names_and_segments() {
    let runtime = folder();
    let first = Daemon::start(runtime.path(), &[]);
    let mut bystanders = Bystanders::join(&first);
    let line = refusal(runtime.path(), &[]);
    assert!(line.contains("instance 'default' (a second one needs its own --name)"), "{line}");
    assert!(line.contains("a program is listening on"), "{line}");
    bystanders.talk();

    let second = Daemon::start(runtime.path(), &["--name", "lab"]);
    let path = runtime.path().join("qhub/lab/qhub.sock");
    assert!(second.stdout().contains(utf8(&path)));
    assert_ne!(first.stdout().lines().nth(1), second.stdout().lines().nth(1));
    let (mut one, mut other) = (Wire::unix(&path), Wire::unix(&path));
    settle(&mut one, &mut other);
    assert_eq!(bystanders.one.try_receive(Duration::from_millis(50)), None, "it is another segment");
    second.stop();
    bystanders.talk();
    first.stop();
}

#[test]
fn the_runtime_folder_is_private() {
    let runtime = folder();
    let daemon = Daemon::start(runtime.path(), &[]);
    for (path, mode) in [("qhub", 0o700), ("qhub/default", 0o700), ("qhub/default/qhub.sock", 0o600)] {
        let found = fs::metadata(runtime.path().join(path)).expect("it was made").permissions().mode();
        assert_eq!(found & 0o7777, mode, "{path}");
    }
    daemon.stop();

    let home = runtime.path().join("qhub");
    fs::set_permissions(&home, Permissions::from_mode(0o755)).expect("it is ours");
    let line = refusal(runtime.path(), &[]);
    assert!(line.contains("others may enter it (mode 755); run 'chmod 700' on it"), "{line}");
    fs::remove_dir_all(&home).expect("it is ours");
    fs::write(&home, "").expect("it is ours");
    let line = refusal(runtime.path(), &[]);
    assert!(line.contains("it is no folder; remove it, or set XDG_RUNTIME_DIR"), "{line}");
    let line = refusal(&runtime.path().join("none"), &[]);
    assert!(line.contains("set XDG_RUNTIME_DIR to a folder of yours"), "{line}");

    fs::remove_file(&home).expect("it is ours");
    if nix::unistd::geteuid().is_root() {
        fs::create_dir(&home).expect("it is ours");
        chown(&home, Some(65_534), Some(65_534)).expect("root may");
        let line = refusal(runtime.path(), &[]);
        assert!(
            line.contains("it belongs to user 65534; set XDG_RUNTIME_DIR to a folder of yours"),
            "{line}"
        );
    }
}

#[test]
fn a_runtime_folder_with_too_long_a_path_is_refused_with_advice() {
    let runtime = folder();
    let deep = runtime.path().join("n".repeat(90));
    fs::create_dir(&deep).expect("it is ours");
    let line = refusal(&deep, &[]);
    assert!(line.contains("at most 107 octets"), "{line}");
    assert!(line.contains("XDG_RUNTIME_DIR") || line.contains("shorter"), "{line}");
}

#[test]
fn too_few_files_for_a_start_are_refused_with_advice() {
    let runtime = folder();
    let line = refusal_by(runtime.path(), r#"ulimit -n 6; exec "$@""#, &["tcp:0", "unix:@qhub-test-few"]);
    assert!(line.contains("Too many open files") && line.contains("ulimit -n"), "{line}");
}
