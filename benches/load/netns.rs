//! Network namespaces: the hosts of a measurement, which are to have a network of their own.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Where iproute2 keeps the names of namespaces, and everybody looks for them.
const NAMES: &str = "/run/netns";

/// Hides the names of this machine's namespaces from us and ours from everybody else. Ours are gone with the
/// last of our processes, however that ends.
pub(crate) fn keep_names_private() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("only root can make network namespaces")?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    fs::create_dir_all(NAMES)?;
    mount(Some("tmpfs"), NAMES, Some("tmpfs"), MsFlags::empty(), nothing)
        .with_context(|| format!("mount a folder of our own on {NAMES}"))
}

/// Takes this thread to the namespace of that name.
pub(crate) fn enter(name: &str) -> anyhow::Result<()> {
    let namespace = File::open(Path::new(NAMES).join(name))
        .with_context(|| format!("open the network namespace {name}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter the network namespace {name}"))
}

/// A namespace that ends with its value.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new(name: impl Into<String>) -> anyhow::Result<Self> {
        let name = name.into();
        ip(&format!("netns add {name}"))?;
        let namespace = Self(name);
        // Else the stack says things on every interface that nobody has asked for.
        namespace.within(|| match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
            // A kernel without IPv6 has nothing to say.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        })?;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs `ip` there.
    pub(crate) fn ip(&self, arguments: &str) -> anyhow::Result<()> {
        ip(&format!("-netns {} {arguments}", self.0))
    }

    /// Does `work` there: what it starts and opens stays there.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let home = File::open("/proc/thread-self/ns/net")?;
        enter(&self.0)?;
        let result = work();
        setns(home, CloneFlags::CLONE_NEWNET).context("return from a network namespace")?;
        result
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that is left behind goes with the last of our processes.
        let _ = ip(&format!("netns delete {}", self.0));
    }
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().context("run ip")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", complaint.trim());
    Ok(())
}
