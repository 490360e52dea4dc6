//! A named instance: its runtime folder, and MAC addresses that stay the same.

use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hub_protocol::mac::Mac;
use nix::unistd::geteuid;

/// What helps when the folder of an instance is not ours.
const ELSEWHERE: &str = "set XDG_RUNTIME_DIR to a folder of yours";

/// An instance of qhub on this host.
#[derive(Debug)]
pub struct Instance {
    name: String,
    folder: PathBuf,
}

impl Instance {
    /// The instance `name`, whose folder is made when it is missing.
    ///
    /// # Errors
    ///
    /// When the folder can't be made or belongs to somebody else.
    pub fn open(name: &str) -> Result<Self> {
        let home = home();
        let folder = home.join(name);
        for folder in [&home, &folder] {
            make_private(folder, ELSEWHERE)
                .with_context(|| format!("runtime folder {}", folder.display()))?;
        }
        Ok(Self { name: name.to_owned(), folder })
    }

    /// The instance `name`, whether it runs or not.
    ///
    /// # Errors
    ///
    /// When its folder belongs to somebody else, who would be joined instead.
    pub fn find(name: &str) -> Result<Self> {
        let home = home();
        let folder = home.join(name);
        for folder in [&home, &folder] {
            if fs::symlink_metadata(folder).is_ok() {
                check_private(folder, ELSEWHERE)
                    .with_context(|| format!("runtime folder {}", folder.display()))?;
            }
        }
        Ok(Self { name: name.to_owned(), folder })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The unix socket that it always serves.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("qhub.sock")
    }
}

/// Where the folders of our instances are.
fn home() -> PathBuf {
    let offered = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    let session = PathBuf::from(format!("/run/user/{}", geteuid()));
    match offered.map(PathBuf::from).filter(|folder| !is_foreign(folder)) {
        Some(folder) => folder.join("qhub"),
        // As after sudo, which hides the variable.
        None if !geteuid().is_root() && owner(&session) == Some(geteuid().as_raw()) => session.join("qhub"),
        None if geteuid().is_root() => PathBuf::from("/run/qhub"),
        None => PathBuf::from(format!("/tmp/qhub-{}", geteuid())),
    }
}

/// Does this folder belong to somebody else, as after `sudo -E`? Ours must not be made in it.
fn is_foreign(folder: &Path) -> bool {
    owner(folder).is_some_and(|owner| owner != geteuid().as_raw())
}

/// Whose folder it is, if there is one.
fn owner(folder: &Path) -> Option<u32> {
    fs::metadata(folder).ok().map(|found| found.uid())
}

/// Makes a folder that only we can enter, or sees that it is one; `instead` is what else helps.
pub(crate) fn make_private(folder: &Path, instead: &str) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("make it, or {instead}"));
        }
        _ => {}
    }
    check_private(folder, instead)
}

/// Sees that a folder is one that only we can enter; `instead` is what else helps.
fn check_private(folder: &Path, instead: &str) -> Result<()> {
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() {
        bail!("it is no folder; remove it, or {instead}");
    }
    if found.uid() != geteuid().as_raw() {
        bail!("it belongs to user {}; {instead}", found.uid());
    }
    if found.mode() & 0o077 != 0 {
        bail!("others may enter it (mode {:o}); run 'chmod 700' on it", found.mode() & 0o7777);
    }
    Ok(())
}

/// MAC addresses for the segment of one instance: always the same on one host for one user, and
/// hardly ever the same as any others.
#[derive(Debug)]
pub struct Macs {
    segment: String,
}

impl Macs {
    /// The addresses of the instance `name`.
    pub fn of(name: &str) -> Self {
        // Two hosts that are joined later must not make the same addresses.
        let host = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Self { segment: [host.trim(), &geteuid().to_string(), name].join("\0") }
    }

    /// The address for `what`.
    pub fn of_vm(&self, what: &str) -> Mac {
        local(fnv1a([self.segment.as_str(), what].join("\0").as_bytes()))
    }
}

/// A random MAC address.
pub fn random_mac() -> Mac {
    local(RandomState::new().hash_one(0))
}

/// A station address of local meaning.
fn local(bits: u64) -> Mac {
    let Mac([first, rest @ ..]) = Mac::from_bits(bits);
    let [b, c, d, e, f] = rest;
    Mac([first & 0xfc | 0x02, b, c, d, e, f])
}

/// FNV-1a, which unlike the hashes of the standard library never changes, folded to 48 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^ hash >> 48
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn golden_hash() {
        assert_eq!(fnv1a(b"") & 0xffff_ffff_ffff, 0x9ce4_8422_2325 ^ 0xcbf2);
        assert_eq!(fnv1a(b"a") >> 48, 0xaf63, "the published value is af63dc4c8601ec8c");
    }

    #[test]
    fn addresses_are_local_stations_and_stable() {
        let one = Macs::of("lab").of_vm("1");
        assert_eq!(one, Macs::of("lab").of_vm("1"));
        assert_ne!(one, Macs::of("lab").of_vm("2"));
        assert_ne!(one, Macs::of("other").of_vm("1"));
        for mac in [one, random_mac(), random_mac()] {
            assert!(mac.is_station());
            assert_eq!(mac.0[0] & 0x02, 0x02, "locally administered");
        }
        assert_ne!(random_mac(), random_mac());
    }

    #[test]
    fn only_a_private_folder_of_ours_will_do() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("qhub");
        make_private(&folder, "").unwrap();
        make_private(&folder, "").unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o750)).unwrap();
        assert!(make_private(&folder, "").unwrap_err().to_string().contains("chmod 700"));
        let link = base.path().join("link");
        std::os::unix::fs::symlink(base.path(), &link).unwrap();
        assert!(make_private(&link, "").unwrap_err().to_string().contains("no folder"));
        let nowhere = make_private(&base.path().join("a/b"), "XDG_RUNTIME_DIR").unwrap_err();
        assert!(format!("{nowhere:#}").contains("XDG_RUNTIME_DIR"));
    }
}
