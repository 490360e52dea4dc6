//! The README's commands for the host, the Internet and the LAN, run as they stand there by somebody who has `sudo`, in a
//! namespace and with an `/etc`, a `/run` and a helper that are not the machine's.

use std::process::Stdio;
use std::time::Duration;

use nix::unistd::chown;

use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::net::Namespace;
use crate::common::require::require;
use crate::common::stack::{AS_NOBODY, NOBODY, OPEN_TUN, have_stacks};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, Wire, mac};

const README: &str = include_str!("../../README.md");

/// The blocks of the README's part about the host that end with a hub that runs.
fn blocks() -> Vec<Vec<&'static str>> {
    let part = README.split("\n## ").find(|part| part.starts_with("The host, the Internet, the LAN"));
    let blocks = part.expect("that part").split("```sh\n").skip(1);
    let lines = blocks.map(|block| block.split("```").next().unwrap_or_default().lines().collect::<Vec<_>>());
    lines.filter(|lines| lines.last().is_some_and(|line| !line.contains("qhub bridge "))).collect()
}

/// The shell's part in doing what `lines` say, of which the last is the hub.
fn script(lines: &[&str], home: &str) -> String {
    let (last, before) = lines.split_last().expect("a block has lines");
    let hub = match last.strip_prefix("sudo ") {
        Some(hub) => hub.replacen("qhub", r#"exec "$@""#, 1),
        None => last.replacen("qhub", &format!(r#"{AS_NOBODY} "$@""#), 1),
    };
    let asked =
        |line: &&str| if line.contains("--take") { format!("{line} --yes") } else { (*line).to_owned() };
    let before: Vec<String> = before.iter().map(asked).collect();
    format!(
        r#"QHUB=$1; export USER=nobody
        cat >{home}/steps <<'END'
            set -e
            sudo() {{ "$@"; }}
            qhub() {{ "$QHUB" "$@" >&2; }}
            cp -a /etc {home}/etc; rm -rf {home}/etc/qemu; mount --bind {home}/etc /etc
            cp -a /usr/lib/qemu {home}/qemu; mount --bind {home}/qemu /usr/lib/qemu
            mount -t tmpfs none /run; {OPEN_TUN}
            {before}
            {hub}
END
        export QHUB; exec unshare --mount sh {home}/steps "$@""#,
        before = before.join("\n"),
    )
}

/// Does whoever has the address answer in ARP?
fn answers(wire: &mut Wire, own: [u8; 4], wanted: [u8; 4]) {
    let mut question = [&BROADCAST[..], &mac(1), &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    question.extend([&mac(1)[..], &own, &[0; 6], &wanted].concat());
    wait_for("an answer in ARP", LIMIT, || {
        wire.send(&question);
        let answer = wire.try_receive(Duration::from_millis(100))?;
        (answer[12..14] == [0x08, 0x06] && answer[20..22] == [0, 2] && answer[28..32] == wanted).then_some(())
    });
}

#[test]
fn the_host_the_internet_and_the_lan_are_reached() {
    if !have_stacks() || !require("root", &["nft"], &["/usr/lib/qemu/qemu-bridge-helper".into()]) {
        return;
    }
    let blocks = blocks();
    let reached =
        [[10, 0, 0, 254], [10, 0, 0, 254], [10, 55, 0, 1], [10, 55, 0, 1], [10, 9, 0, 9], [10, 9, 0, 9]];
    assert_eq!(blocks.len(), reached.len(), "{blocks:?}");
    for (lines, reached) in blocks.iter().zip(reached) {
        let (home, router, runtime, place) = (Namespace::quiet(), Namespace::quiet(), folder(), folder());
        home.cable("eth0", &router, "w");
        home.ip("addr add 10.9.0.1/24 dev eth0");
        router.ip("addr add 10.9.0.9/24 dev w");
        if !lines.last().is_some_and(|line| line.starts_with("sudo ")) {
            chown(runtime.path(), Some(NOBODY.into()), Some(NOBODY.into())).expect("root may");
        }
        let script = script(lines, utf8(place.path()));
        let hub =
            home.within(|| Daemon::launch(runtime.path(), &script, &["--no-tcp"], Stdio::null()).served());
        let own = [reached[0], reached[1], reached[2], 77];
        answers(&mut hub.connect(), own, reached);
        hub.stop();
    }
}
