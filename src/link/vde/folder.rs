//! The folder of a VDE switch: made and removed, given its mode, and cleaned of what the dead have left.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::unistd::{Gid, fchown, geteuid};

use crate::link::socket_file::remove_if_dead;

/// Others may not delete what is not theirs in a folder with this bit: it is shared by strangers.
const STICKY: u32 = 0o1000;

/// What is made in a folder with this bit is of the folder's group.
const SET_GROUP: u32 = 0o2000;

/// Folders that were made by this process and are still there.
static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A folder that was made for the switch; dropping it removes the folder, unless something is in it.
#[derive(Clone, Debug)]
pub(super) struct OwnFolder(PathBuf);

impl OwnFolder {
    /// The folder at `path`, which was made just now.
    fn made(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        MADE.lock().map_err(|_| io::ErrorKind::Other)?.insert(path.clone());
        Ok(Self(path))
    }

    /// The folder at `path`, if it was made by another port of this process.
    fn known(path: &Path) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        MADE.lock().ok()?.get(&path).cloned().map(Self)
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        // Whatever is still in there, its own drop tries again.
        if fs::remove_dir(&self.0).is_ok()
            && let Ok(mut made) = MADE.lock()
        {
            made.remove(&self.0);
        }
    }
}

/// Makes the folder `path`, or sees that there is one. Gives it to the process when it was made by this.
pub(super) fn make(path: &Path) -> Result<Option<OwnFolder>> {
    let shown = path.display();
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(Some(OwnFolder::made(path)?)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("the folder of {shown} does not exist; create it first");
        }
        Err(error) => return Err(error).with_context(|| format!("make {shown}; choose another folder")),
    }
    let found = fs::metadata(path).with_context(|| format!("look at {shown}"))?;
    if !found.is_dir() {
        bail!("{shown} is no folder; remove it or choose another path");
    }
    Ok(OwnFolder::known(path))
}

/// Gives the folder `path`, which is to be this user's alone, its mode, and a group.
pub(super) fn admit(path: &Path, mode: u32, group: Option<Gid>) -> io::Result<()> {
    // Whatever is put in its place meanwhile is not touched.
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = opened.metadata()?;
    if found.uid() != geteuid().as_raw() || found.mode() & STICKY != 0 {
        return Err(io::Error::other(
            "it is not this user's alone; leave out mode= and group=, or choose another folder",
        ));
    }
    fchown(&opened, None, group)?;
    let set_group = if group.is_some() { SET_GROUP } else { 0 };
    opened.set_permissions(fs::Permissions::from_mode(mode | set_group))
}

/// Removes what a switch that was killed has left behind, and clients of this user; as root, of any.
pub(super) fn clean(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_own = |uid| geteuid().is_root() || uid == geteuid().as_raw();
        let is_ours = entry.metadata().is_ok_and(|found| is_own(found.uid()));
        if is_ours && (is_client_name(name.as_bytes()) || is_switch_name(name.as_bytes())) {
            // One that lives, or is no socket, stays.
            let _ = remove_if_dead(&entry.path());
        }
    }
}

/// Is this the name of a client's socket, `.PID-NUMBER`?
pub(super) fn is_client_name(name: &[u8]) -> bool {
    name.strip_prefix(b".").is_some_and(|rest| are_two_numbers(rest, b'-'))
}

/// Is this the name of a switch's socket for a client, `PORT.FD`?
fn is_switch_name(name: &[u8]) -> bool {
    are_two_numbers(name, b'.')
}

fn are_two_numbers(name: &[u8], between: u8) -> bool {
    let mut parts = name.split(|&octet| octet == between);
    let mut is_number =
        || parts.next().is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    is_number() && is_number() && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sockets_are_told_from_others() {
        for (name, is_client, is_switch) in [
            (".12693-00000", true, false),
            ("001.6", false, true),
            ("12693-00000", false, false),
            (".12693", false, false),
            (".-", false, false),
            ("1.2.3", false, false),
            ("001.6x", false, false),
            ("ctl", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_client_name(name.as_bytes()), is_client, "{name}");
            assert_eq!(is_switch_name(name.as_bytes()), is_switch, "{name}");
        }
    }
}
