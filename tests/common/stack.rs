//! Network stacks behind a hub: namespaces that it knows by name, what people try a network with, and the shell's part in
//! starting a hub that sees another `/run`, `/dev/net` or `/etc` than the machine's.

use std::path::Path;
use std::process::{Command, Output};

use super::hub::utf8;
use super::net::{Namespace, have_namespaces};
use super::process::Process;
use super::require::require;
use super::wait::{LIMIT, wait_for};

/// A user and a group without rights.
pub(crate) const NOBODY: u32 = 65_534;

/// Becomes [`NOBODY`]. The change of user would cancel the death signal, so it is asked for again.
pub(crate) const AS_NOBODY: &str = "exec setpriv --reuid 65534 --regid 65534 --clear-groups --pdeathsig KILL";

/// Steps to a `/dev/net/tun` that everybody may open, as it is where udev makes it.
pub(crate) const OPEN_TUN: &str = "mount -t tmpfs none /dev/net; mknod -m 666 /dev/net/tun c 10 200;";

/// What makes the hub's own `/etc` of `folder`.
pub(crate) fn with_etc(folder: &Path) -> String {
    format!("mount --bind {} /etc;", utf8(folder))
}

/// What a shell does to become the hub with mounts of its own: `steps` make them.
pub(crate) fn privately(steps: &str) -> String {
    privately_as("exec", steps)
}

/// The same, where `command` is what the hub's command line is appended to.
pub(crate) fn privately_as(command: &str, steps: &str) -> String {
    format!(r#"exec unshare --mount sh -c 'set -e; {steps} {command} "$@"' sh "$@""#)
}

/// Steps that give namespaces names, as `ip netns` would, for the hub only.
pub(crate) fn naming(names: &[(&str, &Namespace)]) -> String {
    let name = |(name, namespace): &(&str, &Namespace)| {
        let path = namespace.path();
        format!("touch /run/netns/{name}; mount --bind {path} /run/netns/{name}; ")
    };
    let names: String = names.iter().map(name).collect();
    format!("mount -t tmpfs none /run; mkdir /run/netns; {names}")
}

/// Can tests have stacks of their own, with what it takes to try them? Says so if not.
pub(crate) fn have_stacks() -> bool {
    have_namespaces() && require("root", &["busybox", "iperf3", "mount", "unshare", "timeout"], &[])
}

impl Namespace {
    /// One that says nothing by itself, and whose IPv6 addresses count at once.
    pub(crate) fn quiet() -> Self {
        let namespace = Self::new();
        namespace.sh("ip link set lo up
            echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode
            echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad");
        namespace
    }

    /// Joins the two by a cable: `end` is the interface here, `far` the one there, and both are up.
    pub(crate) fn cable(&self, end: &str, other: &Self, far: &str) {
        self.ip(&format!("link add {end} type veth peer name {far} netns {}", other.path()));
        self.ip(&format!("link set {end} up"));
        other.ip(&format!("link set {far} up"));
    }

    /// Runs a script that has to succeed and gives its output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let said = |octets| String::from_utf8_lossy(octets).into_owned();
        let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
        assert!(output.status.success(), "{script} said {stdout}{stderr}");
        stdout
    }

    /// Runs a script, for half a minute at the most.
    pub(crate) fn try_sh(&self, script: &str) -> Output {
        let limited = ["30", "sh", "-c", script];
        self.within(|| Command::new("timeout").args(limited).output().expect("run a shell"))
    }

    /// Waits until `address` answers, and sees that it always does; `options` are busybox ping's.
    pub(crate) fn pings(&self, options: &str, address: &str) {
        let once = format!("busybox ping -c 1 -W 1 {options} {address}");
        wait_for(&format!("{address} to answer"), LIMIT, || {
            self.try_sh(&once).status.success().then_some(())
        });
        let said = self.sh(&format!("busybox ping -c 5 -i 0.02 -W 2 -q {options} {address}"));
        assert!(said.contains(" 0% packet loss"), "{said}");
    }

    /// Does `address` answer within a second?
    pub(crate) fn hears(&self, address: &str) -> bool {
        self.try_sh(&format!("busybox ping -c 1 -W 1 {address}")).status.success()
    }

    /// What a line of `/proc/net/snmp` says: `Tcp` and `InCsumErrors`.
    pub(crate) fn counter(&self, protocol: &str, name: &str) -> u64 {
        let text = self.sh("cat /proc/net/snmp");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{protocol}: ")));
        let (names, values) = (lines.next().expect("a line of names"), lines.next().expect("and of values"));
        let mut pairs = names.split(' ').zip(values.split(' '));
        let (_, value) = pairs.find(|(found, _)| *found == name).expect("a counter of that name");
        value.parse().expect("a number")
    }

    /// Does it know an interface `name`?
    pub(crate) fn has_link(&self, name: &str) -> bool {
        self.try_sh(&format!("ip link show {name}")).status.success()
    }

    /// The MAC address of an interface, and all else that `ip link` says of it, on one line.
    pub(crate) fn link(&self, name: &str) -> (String, String) {
        let line = self.sh(&format!("ip -d -o link show {name}"));
        let mac = line.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        (mac.expect("a MAC address").to_owned(), line)
    }

    /// A server of iperf3 for one client, which runs with `args`.
    pub(crate) fn serves_iperf3(&self, client: &Self, args: &str) {
        let mut server = self.within(|| {
            Process::spawn("iperf3", Process::command("iperf3").args(["-s", "-1", "--forceflush"]))
        });
        wait_for("iperf3 to listen", LIMIT, || server.stdout().contains("listening").then_some(()));
        client.sh(&format!("iperf3 --connect-timeout 5000 {args}"));
        assert!(server.exit(LIMIT).success());
    }
}
