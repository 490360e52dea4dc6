//! QEMU's bridge helper: a small setuid program that makes a TAP on a bridge for users whom
//! `/etc/qemu/bridge.conf` allows to (QEMU `qemu-bridge-helper.c`).

use std::fs::{File, metadata};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::geteuid;

use super::TapLink;
use super::open::find_bridge;
use crate::config::HelperBridge;
use crate::host::netlink::Netlink;
use crate::link::{Peer, sys};

/// Where distributions put it.
const PLACES: [&str; 4] = [
    "/usr/lib/qemu/qemu-bridge-helper",
    "/usr/libexec/qemu-bridge-helper",
    "/usr/lib/qemu-bridge-helper",
    "/usr/local/libexec/qemu-bridge-helper",
];

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What it says of itself at the most, in octets.
const COMPLAINT: usize = 1000;

const SETUID: u32 = 0o4000;

impl TapLink {
    /// Has a TAP made on a bridge.
    ///
    /// # Errors
    ///
    /// When there is no bridge or no helper, or it refuses; says what to do.
    pub fn by_helper(spec: &HelperBridge) -> Result<(Self, Peer)> {
        find_bridge(&mut Netlink::open()?, &spec.bridge)?;
        let helper = find(spec.helper.as_deref())?;
        Self::passed(File::from(run(&helper, spec)?)).context("what the helper passed")
    }
}

fn find(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let places = PLACES.map(Path::new);
    places.into_iter().find(|place| place.exists()).map(Path::to_owned).with_context(|| {
        format!(
            "there is no qemu-bridge-helper in {}; install QEMU (Debian: qemu-system-common), or say where it is with helper=",
            PLACES.join(", ")
        )
    })
}

fn run(helper: &Path, spec: &HelperBridge) -> Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    // The helper is to inherit it.
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let (stderr, their_stderr) = UnixStream::pair()?;
    let mut command = Command::new(helper);
    if spec.offload {
        command.arg("--use-vnet");
    }
    command.arg(format!("--br={}", spec.bridge)).arg(format!("--fd={}", theirs.as_raw_fd()));
    if let (Some(user), Some(_)) = (spec.user, &spec.helper) {
        // Root was given for qhub, not for whatever is named here.
        command.uid(user.uid).gid(user.gid);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(their_stderr));
    let shown = helper.display();
    let mut child = command.spawn().with_context(|| format!("run {shown}"))?;
    // What is open in it now is open in nobody else.
    drop((command, theirs));
    let said = last_words(stderr);
    // One that has ended keeps its status.
    let _ = child.kill();
    let status = child.wait()?;
    let complaint = said.with_context(|| format!("{shown} has not ended after {} s", LIMIT.as_secs()))?;
    ours.set_nonblocking(true)?;
    let mut passed = sys::receive_descriptors(&ours).unwrap_or_default();
    let Some(tap) = passed.pop().filter(|_| status.success()) else {
        let said = if complaint.is_empty() { status.to_string() } else { complaint.clone() };
        bail!("{shown} refused ({said}); {}", advice(&complaint, helper, spec.bridge.as_ref()));
    };
    if !passed.is_empty() {
        bail!("{shown} passed more than one descriptor");
    }
    Ok(tap)
}

/// What a helper says before it ends, which closes its end of `stderr`.
///
/// # Errors
///
/// When it does not end in time.
#[expect(clippy::disallowed_methods, reason = "before the loop there is nobody to hand the time down")]
fn last_words(mut stderr: UnixStream) -> io::Result<String> {
    let deadline = Instant::now() + LIMIT;
    let (mut said, mut some) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        stderr.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stderr.read(&mut some) {
            Ok(0) => return Ok(String::from_utf8_lossy(&said).trim().to_owned()),
            _ if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(octets) => said.extend_from_slice(&some[..octets.min(COMPLAINT - said.len().min(COMPLAINT))]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn advice(complaint: &str, helper: &Path, bridge: &str) -> String {
    let allow = format!("as root: mkdir -p /etc/qemu && echo 'allow {bridge}' >>/etc/qemu/bridge.conf");
    let is_setuid = metadata(helper).is_ok_and(|found| found.mode() & SETUID != 0 && found.uid() == 0);
    if complaint.contains("denied by acl") {
        format!("/etc/qemu/bridge.conf denies {bridge}, or lacks the line 'allow {bridge}'; {allow}")
    } else if complaint.contains("parse default acl") {
        format!("/etc/qemu/bridge.conf is missing or can't be read; {allow}")
    } else if complaint.contains("open /dev/net/tun") {
        "the helper opens it as you; as root: chmod 0666 /dev/net/tun".to_owned()
    } else if !is_setuid && !geteuid().is_root() {
        format!("the helper is not setuid root; as root: chmod u+s {}", helper.display())
    } else {
        "see qemu-bridge-helper in QEMU's manual".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// What is said of a helper that does what `script` says.
    fn refusal(script: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let helper = folder.path().join("helper");
        std::fs::write(&helper, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let bridge = "br7".parse().unwrap();
        let spec = HelperBridge { bridge, helper: Some(helper.clone()), offload: true, user: None };
        format!("{:#}", run(&helper, &spec).unwrap_err())
    }

    #[test]
    fn each_refusal_says_what_helps() {
        for (said, advice) in [
            ("access denied by acl file", "lacks the line 'allow br7'"),
            ("failed to parse default acl file", "missing or can't be read"),
        ] {
            let error = refusal(&format!("echo \"{said}\" >&2; exit 1"));
            assert!(error.contains(said) && error.contains(advice), "{error}");
        }
    }

    #[test]
    fn one_that_passes_nothing_is_told_by_its_end() {
        assert!(refusal("exit 0").contains("refused (exit status: 0)"));
        assert!(refusal("exit 3").contains("refused (exit status: 3)"));
        assert!(refusal("yes complaint | head -c 1000000 >&2").contains("refused (complaint\ncomplaint"));
        let error = find(None).map_or_else(|error| error.to_string(), |_| "helper=".to_owned());
        assert!(error.contains("helper="), "{error}");
    }
}
