//! The file that holds the process's number: there and whole, or not there.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A pid file of ours; dropping it removes it.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    /// Where it is written, until it takes its place.
    draft: Option<PathBuf>,
    /// Open, so that no other file is taken for it.
    file: File,
}

impl PidFile {
    /// Writes it beside its place, so that nothing can go wrong later.
    ///
    /// # Errors
    ///
    /// When that is not possible; says what to do.
    pub(super) fn prepare(path: &Path) -> Result<Self> {
        Self::write(path).with_context(|| format!("pid file {}; choose another one", path.display()))
    }

    fn write(path: &Path) -> Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
            bail!("it is no regular file");
        }
        let pid = std::process::id();
        let Some(name) = path.file_name() else { bail!("it has no name") };
        let mut beside = name.to_owned();
        beside.push(format!(".{pid}"));
        let draft = path.with_file_name(beside);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
        let mut prepared = Self { path: path.to_owned(), draft: Some(draft), file };
        fill(&mut prepared.file, pid)?;
        Ok(prepared)
    }

    /// Puts it in its place.
    ///
    /// # Errors
    ///
    /// When the folder refuses.
    pub(super) fn publish(&mut self) -> Result<()> {
        if let Some(draft) = &self.draft {
            fs::rename(draft, &self.path)
                .with_context(|| format!("pid file {}; choose another one", self.path.display()))?;
            self.draft = None;
        }
        Ok(())
    }
}

fn fill(file: &mut File, pid: u32) -> Result<()> {
    writeln!(file, "{pid}")?;
    // A full disk may say so only now.
    file.sync_all().context("write it")
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let path = self.draft.as_ref().unwrap_or(&self.path);
        let ours = self.file.metadata().map(|ours| identity(&ours));
        let found = fs::symlink_metadata(path).map(|found| identity(&found));
        if let (Ok(ours), Ok(found)) = (ours, found)
            && ours == found
        {
            // It tells nobody anything any more.
            let _ = fs::remove_file(path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_is_there_as_long_as_we_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        fs::write(&path, "an old one that is longer\n").unwrap();
        let mut file = PidFile::prepare(&path).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("an old one"));
        file.publish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(names(folder.path()), ["pid"]);
        drop(file);
        assert_eq!(names(folder.path()).len(), 0);
    }

    #[test]
    fn what_is_not_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        fs::write(&path, "1\n").unwrap();
        drop(PidFile::prepare(&path).unwrap());
        assert_eq!(names(folder.path()), ["pid"], "it was never published");
        let mut file = PidFile::prepare(&path).unwrap();
        file.publish().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "2\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn only_a_regular_file_will_do() {
        for path in ["/dev/full", "/dev/null", "/", "/nonexistent/pid"] {
            let error = format!("{:#}", PidFile::prepare(Path::new(path)).unwrap_err());
            assert!(error.contains("choose another one"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/full", &link).unwrap();
        assert!(PidFile::prepare(&link).is_err());
    }
}
