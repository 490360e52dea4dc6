//! The folder of a VDE switch: made and removed, given its mode, and cleaned of what the dead have left.

use std::collections::BTreeSet;
use std::env;
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

/// Its group may write to a folder with this bit; everybody, with the other.
const FOR_GROUP: u32 = 0o020;
const FOR_OTHERS: u32 = 0o002;

/// Who called sudo.
const SUDO_USER: &str = "SUDO_USER";

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

/// Makes the folder `path`, or sees that one which is there will do; unless its mode `is_asked` for, others may
/// not write there. Gives it to the process when it was made by this.
pub(super) fn make(path: &Path, is_asked: bool) -> Result<Option<OwnFolder>> {
    let shown = path.display();
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(Some(OwnFolder::made(path)?)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("the folder of {shown} does not exist; create it first");
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && env::var_os(SUDO_USER).is_some() => {
            bail!(
                "can't make {shown}: {error}; qhub is the caller of sudo by now: choose another folder, or --user root"
            );
        }
        Err(error) => bail!("can't make {shown}: {error}; choose another folder"),
    }
    let look = || format!("look at {shown}");
    let link = fs::symlink_metadata(path).with_context(look)?;
    if is_asked && link.is_symlink() && link.uid() != geteuid().as_raw() && link.uid() != 0 {
        bail!("{shown} is a link of user {}; write where it leads to", link.uid());
    }
    let found = fs::metadata(path).with_context(look)?;
    if !found.is_dir() {
        bail!("{shown} is no folder; remove it or choose another path");
    }
    if found.uid() != geteuid().as_raw() && found.uid() != 0 {
        bail!(
            "{shown} belongs to user {}, who could take the place of this switch; choose another folder",
            found.uid()
        );
    }
    if found.mode() & FOR_OTHERS != 0 && !is_asked {
        bail!("everybody may write to {shown}; choose a folder of its own, or say who may join by its mode");
    }
    Ok(OwnFolder::known(path))
}

/// Gives the folder `path` a mode, or leaves it its own, and a group. Who may write there may not delete what
/// belongs to others.
pub(super) fn admit(path: &Path, mode: Option<u32>, group: Option<Gid>) -> io::Result<()> {
    // Whatever is put in its place meanwhile is not touched.
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = opened.metadata()?;
    let own = found.mode() & 0o7777;
    let mut mode = mode.unwrap_or(own) | own & SET_GROUP;
    if group.is_some() {
        mode |= SET_GROUP;
    }
    if mode & (FOR_GROUP | FOR_OTHERS) != 0 {
        mode |= STICKY;
    }
    if mode == own && group.is_none_or(|group| group.as_raw() == found.gid()) {
        return Ok(());
    }
    if found.uid() != geteuid().as_raw() || own & (FOR_OTHERS | STICKY) == FOR_OTHERS | STICKY {
        return Err(io::Error::other(
            "it is not this user's alone; leave out mode= and group=, or choose another folder",
        ));
    }
    fchown(&opened, None, group)?;
    opened.set_permissions(fs::Permissions::from_mode(mode))
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
