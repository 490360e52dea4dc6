//! Named network namespaces, as `ip netns` makes them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use anyhow::{Result, anyhow};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` keeps their names.
const NAMES: &str = "/run/netns";

/// Does `work` in the namespace `name`, or in our own: what it opens stays there.
///
/// # Errors
///
/// When there is no such namespace, or we may not enter it; and those of `work`.
pub(crate) fn within<T: Send>(name: Option<&str>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(name) = name else { return work() };
    let namespace = File::open(format!("{NAMES}/{name}")).map_err(|error| explain(error, name))?;
    aside(|| {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|error| explain(error.into(), name))?;
        work()
    })
}

/// Does `work` in a new namespace, which is gone when nothing is open in it any more.
///
/// # Errors
///
/// When only root may; and those of `work`.
pub(crate) fn within_new<T: Send>(work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send) -> Result<T> {
    aside(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|error| anyhow!("only root may make a network namespace ({error}); run as root"))?;
        let namespace = File::open("/proc/thread-self/ns/net")?;
        work(namespace.as_fd())
    })
}

/// Does `work` in a thread of its own: only the one that asks for it moves to another namespace.
fn aside<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let result = thread::scope(|scope| scope.spawn(work).join());
    result.unwrap_or_else(|_| Err(anyhow!("a visit to another network namespace failed")))
}

fn explain(error: io::Error, name: &str) -> anyhow::Error {
    match error.raw_os_error() {
        Some(libc::ENOENT) => {
            anyhow!("there is no network namespace {name}; make it with 'ip netns add {name}'")
        }
        Some(libc::EPERM | libc::EACCES) => {
            anyhow!("only root may enter the network namespace {name}; run as root")
        }
        _ => anyhow!(error).context(format!("enter the network namespace {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_is_no_visit_and_others_must_exist() {
        assert_eq!(within(None, || Ok(thread::current().id())).unwrap(), thread::current().id());
        let error = within(Some("qhub-no-such"), || Ok(())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no network namespace qhub-no-such; make it with 'ip netns add qhub-no-such'"
        );
    }
}
