//! What others open and hand over as an attacker would: descriptors that are no TAPs, or strange ones, and helpers that
//! are no help.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::host::{DELETED, Lab, Noise, passes};
use super::joined::segment;
use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::utf8;
use crate::common::refusal::{refusal, refusal_by};
use crate::common::sniffer::Sniffer;
use crate::common::wait::{Deadline, LIMIT, pause, wait_for};
use crate::common::wire::{Station, frame, mac};

/// What a helper may take, by the hub's own clock, and something.
const HELPER_LIMIT: Duration = Duration::from_secs(13);

#[test]
fn strange_descriptors_are_refused_with_what_they_are() {
    let Some(lab) = Lab::new() else { return };
    for (kind, said) in [
        ("tun", "it is a TUN"),
        ("size25", "25 octets"),
        ("size64", "64 octets"),
        ("unattached", "neither a socket nor a TAP"),
        ("file", "neither a socket nor a TAP"),
        ("folder", "neither a socket nor a TAP"),
        ("pipe", "neither a socket nor a TAP"),
        ("null", "neither a socket nor a TAP"),
        ("packet", "neither a unix nor an Internet socket"),
        ("netlink", "neither a unix nor an Internet socket"),
    ] {
        let line = lab.net.within(|| refusal_by(lab.runtime.path(), &lab.script(kind), &["fd:9"]));
        assert!(line.contains("port fd:9") && line.contains(said), "{kind}: {line}");
    }
}

/// It takes frames, but no frame ever comes out of it.
#[test]
fn a_detached_queue_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let line = never_serves(&lab, "detached");
    assert!(line.contains("detached"), "{line}");
}

/// What a hub says that must not serve `kind`.
fn never_serves(lab: &Lab, kind: &str) -> String {
    let script = lab.script(kind);
    let mut daemon =
        lab.net.within(|| Daemon::launch(lab.runtime.path(), &script, &["--no-tcp", "fd:9"], Stdio::null()));
    wait_for("it to be refused or served", LIMIT, || {
        assert!(!daemon.stdout().ends_with("stops.\n"), "a descriptor that is {kind} is served");
        daemon.try_exit()
    });
    daemon.line("qhub: ")
}

/// `TUNGETIFF` says `IFF_NO_PI` of it, too: the same bit means that it has no filter.
#[test]
fn a_tap_with_packet_information_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let line = never_serves(&lab, "pi");
    assert!(line.contains("packet information"), "{line}");
}

#[test]
fn headers_of_any_size_that_it_knows_and_queues_of_a_tap_work() {
    let Some(lab) = Lab::new() else { return };
    for kind in ["size10", "size11", "size12", "size13", "size24", "multi", "sndbuf"] {
        let daemon = lab.net.within(|| Daemon::start_by(lab.runtime.path(), &lab.script(kind), &["fd:9"]));
        lab.net.ip("link set odd0 addrgenmode none up");
        let mut bystanders = Bystanders::join(&daemon);
        let mut below = Sniffer::new(&lab.net, "odd0");
        passes(&mut bystanders.one, &mut below, 1);
        if kind != "multi" {
            // The system chooses the queue, and nobody reads the other.
            passes(&mut below, &mut bystanders.one, 2);
        }
        let sent: Vec<_> = (0..200).map(|number| segment(number, 1000)).collect();
        bystanders.one.send_all(&sent);
        let mut payload = 0;
        while payload < 200 * 1000 {
            let got = below.receive_if("segments", |frame| frame[12..14] == [8, 0]);
            payload += got.len() - 54;
        }
        bystanders.talk();
        daemon.stop();
    }
}

#[test]
fn one_tap_twice_harms_nobody_else() {
    let Some(lab) = Lab::new() else { return };
    let daemon = lab.net.within(|| {
        Daemon::start_by(lab.runtime.path(), &lab.script("twice"), &["fd:9,name=a", "fd:8,name=b"])
    });
    lab.net.ip("link set odd0 addrgenmode none up");
    let mut bystanders = Bystanders::join(&daemon);
    let noise = Noise::start(&lab.net, "odd0", vec![frame(mac(0xe1), mac(0x51), 100, 1)]);
    for _ in 0..50 {
        bystanders.talk();
    }
    noise.stop();
    assert!(daemon.idles(), "it spins");
    lab.net.ip("link del odd0");
    wait_for("both to go", LIMIT, || (daemon.count(DELETED) == 2).then_some(()));
    bystanders.talk();
    daemon.stop();
}

/// Starts a hub with `bridge:br0` and a helper that does `body`.
fn launch(lab: &Lab, name: &str, body: &str) -> Daemon {
    if !lab.has("br0") {
        lab.net.ip("link add br0 type bridge");
    }
    let helper = lab.helper(name, body);
    let runtime = lab.runtime.path().join(format!("run-{name}"));
    fs::create_dir(&runtime).expect("a new folder");
    let spec = format!("bridge:br0,helper={}", utf8(&helper));
    // The first is there when the helper starts.
    let args = ["--no-tcp", "tap:", &spec];
    lab.net.within(|| Daemon::launch(&runtime, r#"exec "$@""#, &args, Stdio::null()))
}

/// Each is given as much time as a helper may take: they run at the same time.
#[test]
fn no_helper_holds_up_the_start_for_ever() {
    let Some(lab) = Lab::new() else { return };
    let stuck = [
        ("hangs", "time.sleep(60)"),
        ("closes", "channel.close(); time.sleep(60)"),
        ("gives", "give(tap()); time.sleep(60)"),
        ("parent", "give(tap()); subprocess.Popen(['sleep', '60'], close_fds=True)"),
        ("babbles", "channel.close(); os.write(2, b'no ' * 100000)"),
        ("stubborn", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"),
    ];
    let mut daemons: Vec<_> = stuck.iter().map(|(name, body)| (name, launch(&lab, name, body))).collect();
    let deadline = Deadline::after(HELPER_LIMIT);
    let mut waiting = daemons.iter_mut().collect::<Vec<_>>();
    while deadline.left().is_some() && !waiting.is_empty() {
        waiting
            .retain_mut(|(_, daemon)| daemon.try_exit().is_none() && !daemon.stdout().ends_with("stops.\n"));
        pause(Duration::from_millis(20));
    }
    let names: Vec<_> = waiting.iter().map(|(name, _)| **name).collect();
    assert!(names.is_empty(), "the start waits for ever for helpers that do this: {names:?}");
}

#[test]
fn helpers_that_fail_are_told_in_one_line() {
    let Some(lab) = Lab::new() else { return };
    for (name, body, said) in [
        ("crash", "os.abort()", "refused"),
        ("fails", "print('no such luck', file=sys.stderr); sys.exit(3)", "no such luck"),
        ("octet", "channel.send(b'x')", "refused"),
        ("file", "give(os.open('/dev/null', os.O_RDWR))", "no TAP"),
        ("socket", "give(socket.socket().detach())", "no TAP"),
        ("bare", "give(os.open('/dev/net/tun', os.O_RDWR))", "no TAP"),
        ("tun", "give(tap(0x1001))", "TUN"),
    ] {
        let mut daemon = launch(&lab, name, body);
        let status = daemon.exit();
        let line = daemon.line("qhub: ");
        assert_eq!(status.code(), Some(1), "{name}: {line}");
        assert!(line.contains("port bridge:br0") && line.contains(said), "{name}: {line}");
    }
    let text = lab.runtime.path().join("text");
    fs::write(&text, "no program").expect("a new file");
    for helper in [text.as_path(), lab.runtime.path(), Path::new("/no/such")] {
        let args = [&*format!("bridge:br0,helper={}", utf8(helper))];
        let line = lab.net.within(|| refusal(lab.runtime.path(), &args));
        assert!(line.contains(&format!("run {}", utf8(helper))), "{line}");
    }
}

#[test]
fn a_helper_gets_one_descriptor_and_gives_one() {
    let Some(lab) = Lab::new() else { return };
    let seen = lab.runtime.path().join("seen");
    let look = format!(
        "folder = '/proc/self/fd/'\n\
         mine = [os.readlink(folder + n) for n in os.listdir(folder) if os.path.lexists(folder + n)]\n\
         open('{}', 'w').write('\\n'.join(mine))\n\
         give(tap())",
        utf8(&seen)
    );
    let one = launch(&lab, "one", &look).served();
    let told = fs::read_to_string(seen).expect("the helper wrote it");
    assert!(told.contains("socket:"), "{told}");
    assert!(!told.contains("/dev/net/tun") && !told.contains("eventpoll"), "none of its business: {told}");
    let mut bystanders = Bystanders::join(&one);
    bystanders.talk();
    assert_eq!(one.table().ports.len(), 4);
    one.stop();
    for (name, body) in [("two", "give(tap(), tap())"), ("three", "give(tap(), tap(), tap())")] {
        let mut daemon = launch(&lab, name, body);
        let line = daemon.line("qhub: ");
        assert!(line.contains("more than one descriptor"), "{line}");
        assert_eq!(daemon.exit().code(), Some(1));
    }
}
