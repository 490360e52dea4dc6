//! The settings of the network in `/proc/sys/net`, in the network namespace of the calling thread.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use serde::{Deserialize, Serialize};

/// A setting and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Where it is, as in `ipv4/ip_forward`.
    pub path: String,
    /// What it is.
    pub value: String,
}

impl Setting {
    /// A setting that is to have this value.
    pub fn new(path: impl Into<String>, value: impl Into<String>) -> Self {
        Self { path: path.into(), value: value.into() }
    }

    /// Reads one; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn read(path: &str) -> io::Result<Option<Self>> {
        match fs::read_to_string(file(path)) {
            Ok(value) => Ok(Some(Self::new(path, value.trim_end()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it where there is such a setting, unless it has this value.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn write(&self) -> io::Result<()> {
        let path = &self.path;
        match Self::read(path) {
            Ok(None) => return Ok(()),
            Ok(Some(found)) if found == *self => return Ok(()),
            Ok(Some(_)) => {}
            // A stable_secret can't be read before it has been written.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
            Err(error) => return Err(error),
        }
        let explained = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        fs::write(file(path), &self.value).map_err(explained)
    }
}

/// The names below a folder of settings, sorted; none if there is no such folder.
pub fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(file(folder)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The settings of one interface in `folder`, as far as they can be read and written, in an order to write them in.
pub fn of_interface(folder: &str, interface: &str) -> Vec<Setting> {
    let folder = format!("{folder}/{interface}");
    let mut names = names(&folder);
    // Without it the kernel refuses an addr_gen_mode that needs it, and with it sets one.
    names.sort_by_key(|name| name != "stable_secret");
    let paths = names.into_iter().map(|name| format!("{folder}/{name}"));
    paths
        .filter(|path| fs::metadata(file(path)).is_ok_and(|found| found.permissions().mode() & 0o200 != 0))
        .filter_map(|path| Setting::read(&path).ok().flatten())
        .collect()
}

fn file(path: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(path)
}
