//! `bridge:`: a TAP on a bridge through the real qemu-bridge-helper, with an access list that only the hub and the helper
//! see.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::chown;
use tempfile::TempDir;

use crate::common::daemon::Daemon;
use crate::common::hub::{folder, utf8};
use crate::common::net::Namespace;
use crate::common::refusal::refusal_by;
use crate::common::require::require;
use crate::common::stack::{AS_NOBODY, NOBODY, OPEN_TUN, have_stacks, naming, privately_as, with_etc};

/// Where Debian has it.
const HELPER: &str = "/usr/lib/qemu/qemu-bridge-helper";

fn have_helper() -> bool {
    have_stacks() && require("qemu", &[], &[HELPER.into()])
}

/// A host with the bridge `br0`, which has 10.9.0.2.
fn bridged() -> Namespace {
    let home = Namespace::quiet();
    home.ip("link add br0 type bridge");
    home.ip("link set br0 mtu 1400 up");
    home.ip("addr add 10.9.0.2/24 dev br0");
    home
}

/// An `/etc` with this access list, if any, and the users of this machine.
fn etc(list: Option<&str>) -> TempDir {
    let etc = folder();
    fs::set_permissions(etc.path(), Permissions::from_mode(0o755)).expect("it is ours");
    for name in ["passwd", "group", "nsswitch.conf", "ld.so.cache"] {
        // Not every system has all of them.
        let _ = fs::copy(Path::new("/etc").join(name), etc.path().join(name));
    }
    fs::create_dir(etc.path().join("qemu")).expect("it is ours");
    if let Some(list) = list {
        fs::write(etc.path().join("qemu/bridge.conf"), list).expect("it is ours");
    }
    etc
}

/// The helper as a system has it that lets its users have bridges, or not.
fn helper(place: &TempDir, mode: u32) -> PathBuf {
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("it is ours");
    let path = place.path().join("helper");
    fs::copy(HELPER, &path).expect("it is ours");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
    path
}

/// A runtime folder of nobody's.
fn their_folder() -> TempDir {
    let folder = folder();
    chown(folder.path(), Some(NOBODY.into()), Some(NOBODY.into())).expect("root may");
    folder
}

/// Sees that a stack behind a hub, which a shell becomes by `command`, reaches the bridge.
fn reaches_the_bridge(command: &str, etc: &TempDir, options: &str) {
    let (home, one) = (bridged(), Namespace::quiet());
    let runtime = if command == AS_NOBODY { their_folder() } else { folder() };
    let script = privately_as(command, &format!("{OPEN_TUN} {}", with_etc(etc.path())));
    let hub = home.within(|| Daemon::start_by(runtime.path(), &script, &[&format!("bridge:br0{options}")]));
    let line = hub.line("peer=interface tap0");
    assert!(line.contains("port up port=tap0 "), "{line}");
    let (address, row) = home.link("tap0");
    assert!(
        address.starts_with("fe:") && row.contains(" master br0 ") && row.contains(" mtu 1400 "),
        "{row}"
    );
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", hub.pid())).expect("the hub lives");
    assert_eq!(children, "", "the helper is still there");

    let other = folder();
    let dial = format!("connect:unix:{}", utf8(hub.socket()));
    let script = privately_as("exec", &naming(&[("one", &one)]));
    let tap = "tap:lab,netns=one,addr=10.9.0.1/24,mtu=1400";
    let far = home.within(|| Daemon::start_by(other.path(), &script, &[&dial, tap]));
    one.pings("-s 1372", "10.9.0.2");
    home.serves_iperf3(&one, "-c 10.9.0.2 -n 2M --bidir");
    assert_eq!(home.counter("Tcp", "InCsumErrors") + one.counter("Tcp", "InCsumErrors"), 0);
    assert_eq!(hub.count("WARN"), 0, "{}", hub.log());
    far.stop();
    hub.stop();
    assert!(!home.has_link("tap0"), "it stayed");
}

#[test]
fn root_gets_a_bridge_that_the_list_allows() {
    if !have_helper() {
        return;
    }
    reaches_the_bridge("exec", &etc(Some("# ours\ndeny br1\nallow br0\n")), "");
    reaches_the_bridge("exec", &etc(Some("allow all\n")), ",offload=off");
}

#[test]
fn a_user_gets_a_bridge_by_a_helper_that_is_setuid() {
    if !have_helper() {
        return;
    }
    let place = folder();
    let helper = helper(&place, 0o4755);
    let option = format!(",helper={}", utf8(&helper));
    reaches_the_bridge(AS_NOBODY, &etc(Some("allow br0\n")), &option);
}

#[test]
fn what_the_helper_refuses_is_told_with_what_helps() {
    if !have_helper() {
        return;
    }
    let (setuid_place, plain_place) = (folder(), folder());
    let (setuid, plain) = (helper(&setuid_place, 0o4755), helper(&plain_place, 0o755));
    let (setuid, plain) = (utf8(&setuid), utf8(&plain));
    let home = bridged();
    let allow = "as root: mkdir -p /etc/qemu && echo 'allow br0' >>/etc/qemu/bridge.conf";
    let lacks = format!("/etc/qemu/bridge.conf denies br0, or lacks the line 'allow br0'; {allow}");
    let missing = format!("/etc/qemu/bridge.conf is missing or can't be read; {allow}");
    let not_setuid = format!("the helper is not setuid root; as root: chmod u+s {plain}");
    for (command, list, helper, said, advice) in [
        ("exec", Some("allow br1\n"), HELPER, "access denied by acl file", lacks.as_str()),
        ("exec", Some("allow all\ndeny br0\n"), HELPER, "access denied by acl file", &lacks),
        ("exec", None, HELPER, "failed to parse default acl file `/etc/qemu/bridge.conf'", &missing),
        (AS_NOBODY, Some("allow br1\n"), setuid, "access denied by acl file", &lacks),
        (AS_NOBODY, Some("allow br0\n"), plain, "Operation not permitted", &not_setuid),
    ] {
        let (etc, runtime) = (etc(list), their_folder());
        let script = privately_as(command, &format!("{OPEN_TUN} {}", with_etc(etc.path())));
        let port = "bridge:br0";
        let spec = if helper == HELPER { port.to_owned() } else { format!("{port},helper={helper}") };
        let line = home.within(|| refusal_by(runtime.path(), &script, &[&spec]));
        assert!(line.starts_with(&format!("qhub: port {port}: {helper} refused (")), "{line}");
        assert!(line.contains(said) && line.ends_with(&format!("); {advice}")), "{line}");
    }
    let line = home.within(|| refusal_by(folder().path(), r#"exec "$@""#, &["bridge:br0,helper=/no/such"]));
    assert!(line.starts_with("qhub: port bridge:br0: run /no/such: No such file"), "{line}");
}

/// The helper opens the device as whoever called it.
#[test]
fn a_device_that_only_root_may_open_is_told() {
    if !have_helper() {
        return;
    }
    let (place, etc, runtime) = (folder(), etc(Some("allow br0\n")), their_folder());
    let helper = helper(&place, 0o4755);
    let closed = "mount -t tmpfs none /dev/net; mknod -m 600 /dev/net/tun c 10 200;";
    let script = privately_as(AS_NOBODY, &format!("{closed} {}", with_etc(etc.path())));
    let spec = format!("bridge:br0,helper={}", utf8(&helper));
    let line = bridged().within(|| refusal_by(runtime.path(), &script, &[&spec]));
    assert!(line.contains("refused (failed to open /dev/net/tun: Permission denied)"), "{line}");
    assert!(line.contains("as root: chmod 0666 /dev/net/tun"), "{line}");
}
