//! What is kept on disk of each bridge, so that it can be taken down by another process, whatever became of the one that
//! made it: `/run/qhub/bridge/NAMESPACE/NAME.json`. It goes with the next boot, as the bridges do.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::libc;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::request::BridgeName;
use super::step::{Family, Step, Takeover};
use crate::instance::make_private;
use crate::link::sys::namespace_cookie;

const HOME: [&str; 2] = ["/run/qhub", "/run/qhub/bridge"];

/// One bridge: what was to be done to make it, and how far that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) bridge: BridgeName,
    pub(super) state: State,
    pub(super) steps: Vec<Step>,
}

/// How far a bridge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// Being made, or half made when nobody is at it.
    Coming,
    /// All steps are done.
    Up,
    /// Being taken down, or half down when nobody is at it.
    Going,
}

impl Journal {
    /// Does it need the host to forward such packets?
    pub(super) fn forwards(&self, wanted: Family) -> bool {
        self.steps.iter().filter_map(Step::forwarding).any(|forwarding| forwarding.family == wanted)
    }

    /// What it takes from an interface.
    pub(super) fn takeover(&self) -> Option<&Takeover> {
        self.steps.iter().find_map(Step::takeover)
    }
}

/// The journals of this network namespace, which only one process at a time may change.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    /// Unlocks when it is closed.
    _lock: Option<File>,
}

impl Store {
    /// The store, for reading.
    pub(super) fn open() -> Result<Self> {
        let folder = Path::new(HOME[1]).join(namespace()?);
        for folder in HOME.map(Path::new).into_iter().chain([folder.as_path()]) {
            make_private(folder, "rename it").with_context(|| format!("folder {}", folder.display()))?;
        }
        Ok(Self { folder, _lock: None })
    }

    /// The store, for one that changes something.
    pub(super) fn lock() -> Result<Self> {
        let mut store = Self::open()?;
        let path = store.folder.join("lock");
        let opened = File::options().create(true).append(true).mode(0o600).open(&path);
        let file = opened.with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                bail!("another 'qhub bridge' is at work, or waits for an answer; try again when it is done")
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        store._lock = Some(file);
        Ok(store)
    }

    /// All journals, by the names of their bridges.
    pub(super) fn journals(&self) -> Result<Vec<Journal>> {
        let shown = self.folder.display();
        let entries = fs::read_dir(&self.folder).with_context(|| format!("read {shown}"))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        paths.iter().map(|path| read(path)).collect()
    }

    /// Writes a journal, in one piece or not at all, and to the disk.
    pub(super) fn write(&self, journal: &Journal) -> Result<()> {
        let path = self.path(&journal.bridge);
        let aside = path.with_extension("new");
        let write = || -> Result<()> {
            let mut file =
                File::options().create(true).write(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(&serde_json::to_vec_pretty(journal)?)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.folder)?.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Removes the journal of a bridge.
    pub(super) fn remove(&self, bridge: &BridgeName) -> Result<()> {
        let path = self.path(bridge);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, bridge: &BridgeName) -> PathBuf {
        // No extension takes the place of what follows a dot in the name.
        self.folder.join(format!("{bridge}.json"))
    }
}

fn read(path: &Path) -> Result<Journal> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is no journal of this version of qhub; take the bridge down with the one that made it",
            path.display()
        )
    })
}

/// A name for the network namespace of this thread. The number of its file is given to others when it is gone, the
/// kernel's cookie is not.
fn namespace() -> Result<String> {
    let file = "/proc/thread-self/ns/net";
    let number = fs::metadata(file).with_context(|| format!("look at {file}"))?.ino();
    let cookie = match namespace_cookie(Socket::new(Domain::UNIX, Type::DGRAM, None)?) {
        // Before Linux 5.14.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => 0,
        cookie => cookie.context("ask for the network namespace")?,
    };
    Ok(format!("{number}-{cookie}"))
}
