//! A host with a network and a `/run` of its own, whose network qhub changes, and a picture of that network.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::hub::{folder, utf8};
use super::net::{Namespace, have_namespaces};
use super::require::require;
use super::wait::{LIMIT, pause, wait_for};

pub(crate) struct Lab {
    pub(crate) host: Namespace,
    run: TempDir,
}

/// Can hosts be made whose bridges are made and unmade, step by step?
pub(crate) fn have_labs() -> bool {
    have_namespaces() && require("root", &["nft", "busybox", "strace", "script", "unshare"], &[])
}

/// A host whose IPv6 addresses are good at once.
pub(crate) fn quick_host() -> Namespace {
    let host = Namespace::new();
    host.output(
        "busybox",
        &["sysctl", "-w", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0"],
    );
    host.ip("link set lo up");
    host
}

/// Joins two hosts by a cable, with an interface at either end, and returns when frames can pass.
pub(crate) fn join(one: (&Namespace, &str), other: (&Namespace, &str)) {
    one.0.ip(&format!("link add {} type veth peer name {} netns {}", one.1, other.1, other.0.path()));
    for (host, interface) in [one, other] {
        host.ip(&format!("link set {interface} up"));
    }
    for (host, interface) in [one, other] {
        wait_for("a cable to carry", LIMIT, || {
            let shown = host.output("ip", &["-6", "addr", "show", "dev", interface, "scope", "link"]);
            let state = host.output("ip", &["link", "show", "dev", interface]);
            let is_up = String::from_utf8_lossy(&state).contains("state UP");
            (is_up && !shown.is_empty()).then_some(())
        });
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { host: quick_host(), run: folder() }
    }

    /// With `eth0` in a network where a router answers at 192.0.2.1 and 2001:db8::1.
    pub(crate) fn with_lan() -> (Self, Namespace) {
        let (lab, router) = (Self::new(), quick_host());
        join((&lab.host, "eth0"), (&router, "eth0"));
        for address in ["192.0.2.1/24", "2001:db8::1/64", "198.51.100.1/32"] {
            router.ip(&format!("addr add {address} dev eth0"));
        }
        for address in
            ["192.0.2.5/24 brd 192.0.2.255", "192.0.2.6/24", "10.9.9.9/32 scope link", "2001:db8::5/64"]
        {
            lab.host.ip(&format!("addr add {address} dev eth0"));
        }
        lab.host.ip("addr add 2001:db8::6/64 dev eth0 noprefixroute");
        for route in [
            "default via 192.0.2.1 dev eth0 metric 100 proto dhcp src 192.0.2.6",
            "198.51.100.0/24 via 192.0.2.1 dev eth0 mtu 1400",
            "203.0.113.0/24 dev eth0 scope link table 7",
        ] {
            lab.host.ip(&format!("route add {route}"));
        }
        lab.host.ip("-6 route add default via 2001:db8::1 dev eth0 metric 33");
        lab.host.ip("-6 route add 2001:db8:7::/48 via fe80::1 dev eth0");
        (lab, router)
    }

    /// What qhub says when it is started there.
    pub(crate) fn qhub(&self, arguments: &[&str]) -> Output {
        self.run(&[&["timeout", "20", env!("CARGO_BIN_EXE_qhub")], arguments].concat())
    }

    /// The same, where something happens to it when it calls the system: as strace's `inject=` has it.
    pub(crate) fn injected(&self, injection: &str, arguments: &[&str]) -> Output {
        let calls = injection.split(':').next().unwrap_or_default();
        let (trace, inject) = (format!("trace={calls}"), format!("inject={injection}"));
        let strace = ["timeout", "20", "strace", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        self.run(&[&strace[..], &[env!("CARGO_BIN_EXE_qhub")], arguments].concat())
    }

    /// Runs qhub, which has to succeed, and gives what it prints.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.qhub(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs qhub, which has to refuse, change nothing and say why in a line, which this gives.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let before = self.picture();
        let output = self.qhub(arguments);
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        self.is_again(&before, &line);
        line
    }

    /// Runs a program with this host's network and `/run`.
    pub(crate) fn run(&self, command: &[&str]) -> Output {
        self.host.within(|| self.command(command).output().expect("util-linux has unshare"))
    }

    /// Runs qhub in an SSH session from the router, whose user types this answer. What it says is all in `stdout`.
    pub(crate) fn on_terminal(&self, arguments: &[&str], answer: &str) -> Output {
        let command = [&[env!("CARGO_BIN_EXE_qhub")], arguments].concat().join(" ");
        let mut script = self.command(&["timeout", "20", "script", "-qec", &command, "/dev/null"]);
        script.env("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.5 22");
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.host.within(|| script.spawn().expect("bsdutils has script"));
        let typed = child.stdin.as_mut().expect("stdin is a pipe").write_all(answer.as_bytes());
        typed.expect("script reads what is typed");
        child.wait_with_output().expect("wait for a child of ours")
    }

    pub(crate) fn command(&self, command: &[&str]) -> Command {
        let script = r#"mount --bind "$0" /run && exec "$@""#;
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", script, utf8(self.run.path())]).args(command);
        unshare.env_remove("SSH_CONNECTION").stdin(Stdio::null());
        unshare
    }

    /// Where its `/run` really is.
    pub(crate) fn run_folder(&self) -> &Path {
        self.run.path()
    }

    /// All of the network that qhub may change, once it has come to rest.
    pub(crate) fn picture(&self) -> String {
        let mut last = String::new();
        wait_for("the network to rest", LIMIT, || {
            let now = self.look();
            let rests = now == last && !now.contains("tentative");
            last = now;
            pause(Duration::from_millis(10));
            rests.then(|| last.clone())
        })
    }

    /// Links, addresses, routes, rules, and settings.
    fn look(&self) -> String {
        let mut lines = Vec::new();
        for arguments in [
            "-o -d link",
            "-o addr",
            "-4 route show table all",
            "-6 route show table all",
            "-4 rule",
            "-6 rule",
        ] {
            let arguments: Vec<&str> = arguments.split(' ').collect();
            let shown = text(&self.host.output("ip", &arguments));
            let mut shown: Vec<String> =
                shown.lines().map(|line| format!("{arguments:?} {}", without_timers(line))).collect();
            // Of addresses the order counts.
            if !arguments.contains(&"addr") {
                shown.sort();
            }
            lines.extend(shown);
        }
        lines.push(text(&self.host.output("nft", &["list", "ruleset"])));
        lines.extend(self.host.within(|| {
            let folders = ["ipv4/conf", "ipv6/conf"].map(Path::new);
            let mut files = vec![Path::new("/proc/sys/net/ipv4/ip_forward").to_owned()];
            let interfaces =
                folders.iter().flat_map(|folder| entries(&Path::new("/proc/sys/net").join(folder)));
            files.extend(interfaces.flat_map(|interface| entries(&interface)));
            files.sort();
            let value = |file: &PathBuf| fs::read_to_string(file).unwrap_or_default();
            files
                .iter()
                .map(|file| format!("{} = {}", file.display(), value(file).trim()))
                .collect::<Vec<_>>()
        }));
        lines.join("\n")
    }

    /// Waits until the network is as in the picture: some of it the kernel does a little later.
    pub(crate) fn is_again(&self, wanted: &str, why: &str) {
        for _ in 0..400 {
            if self.look() == wanted {
                return;
            }
            pause(Duration::from_millis(5));
        }
        let now = self.look();
        let differences: Vec<String> = [(&now, wanted, '+'), (&wanted.to_owned(), &now, '-')]
            .iter()
            .flat_map(|(one, other, sign)| {
                let other: Vec<&str> = other.lines().collect();
                one.lines()
                    .filter(move |line| !other.contains(line))
                    .map(move |line| format!("{sign} {line}"))
                    .collect::<Vec<_>>()
            })
            .collect();
        panic!("{why}: not as before, but\n{}", differences.join("\n"));
    }

    /// Does a host answer when it is pinged?
    pub(crate) fn pings(&self, address: &str) -> bool {
        pings(&self.host, address)
    }
}

/// Does a host answer when it is pinged from another one?
pub(crate) fn pings(from: &Namespace, address: &str) -> bool {
    let ping = || Command::new("busybox").args(["ping", "-c", "1", "-W", "2", address]).output();
    from.within(|| ping().expect("run busybox").status.success())
}

pub(crate) fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .expect("a folder of settings")
        .map(|entry| entry.expect("a setting").path())
        .collect()
}

/// Bridges have some that run.
fn without_timers(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        kept.push(word);
        if word.ends_with("_timer") {
            words.next();
        }
    }
    kept.join(" ")
}
