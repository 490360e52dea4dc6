//! What is kept on disk of each bridge, so that it can be taken down by another process, whatever became of the one that
//! made it: `/run/qhub/bridge/NAMESPACE/NAME.json`. It goes with the next boot, as the bridges do.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use hub_protocol::mac::Mac;
use nix::libc;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::request::BridgeName;
use super::step::{Family, Step, Takeover};
use crate::host::netlink::LinkRow;
use crate::instance::make_private;
use crate::link::sys::namespace_cookie;

const HOME: [&str; 2] = ["/run/qhub", "/run/qhub/bridge"];

/// One bridge: what was to be done to make it, and how far that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) bridge: BridgeName,
    pub(super) state: State,
    /// The number of the bridge, by which it is known whatever it is called; `None` before all steps are done.
    #[serde(default)]
    pub(super) index: Option<u32>,
    pub(super) steps: Vec<Step>,
}

/// What journals there are.
#[derive(Debug, Default)]
pub(super) struct Journals {
    /// By the names of their bridges.
    pub(super) readable: Vec<Journal>,
    /// Why the others can't be read.
    pub(super) unreadable: Vec<Error>,
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

    /// Is this its bridge, and not one that somebody else gave the name to?
    pub(super) fn is_bridge(&self, link: &LinkRow) -> bool {
        let is_made = || link.name == self.bridge.as_str() && link.mac.is_some() && link.mac == self.mac();
        link.kind.as_deref() == Some("bridge") && self.index.map_or_else(is_made, |index| link.index == index)
    }

    /// The MAC address of its bridge.
    pub(super) fn mac(&self) -> Option<Mac> {
        let of_step = |step: &Step| if let Step::Bridge { mac, .. } = step { Some(Mac(*mac)) } else { None };
        self.steps.iter().find_map(of_step)
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

    /// The journal of a bridge, if there is one.
    pub(super) fn journal(&self, bridge: &BridgeName) -> Result<Option<Journal>> {
        read(&self.path(bridge))
    }

    /// All journals but that of this bridge.
    pub(super) fn others(&self, bridge: &BridgeName) -> Result<Journals> {
        self.journals_but(Some(&self.path(bridge)))
    }

    /// All journals.
    pub(super) fn journals(&self) -> Result<Journals> {
        self.journals_but(None)
    }

    fn journals_but(&self, left_out: Option<&Path>) -> Result<Journals> {
        let shown = self.folder.display();
        let entries = fs::read_dir(&self.folder).with_context(|| format!("read {shown}"))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.retain(|path| left_out != Some(path));
        paths.sort();
        let mut journals = Journals::default();
        for path in paths {
            match read(&path) {
                Ok(journal) => journals.readable.extend(journal),
                Err(error) => journals.unreadable.push(error),
            }
        }
        Ok(journals)
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
        write()
            .inspect_err(|_| {
                // What is left of it would fill a full disk for good.
                let _ = fs::remove_file(&aside);
            })
            .with_context(|| format!("write {}", path.display()))
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

/// `None` if there is none, or no longer.
fn read(path: &Path) -> Result<Option<Journal>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("read {}", path.display()))?,
    };
    serde_json::from_slice(&text).map(Some).with_context(|| {
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
