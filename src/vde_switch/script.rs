//! Files of commands: the one that a switch begins with, and those of `load`.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::vec::IntoIter;

use nix::errno::Errno;
use nix::libc;

/// Octets of a file.
const FILE_MAX: u64 = 64 * 1024;

/// Files that load each other, at a time.
const DEPTH_MAX: usize = 8;

/// Commands that one `load` leads to.
pub(super) const COMMANDS_MAX: usize = 4096;

/// The commands of a file that are still to be done, and of those that it loads.
#[derive(Debug)]
pub(super) struct Script {
    files: Vec<ScriptFile>,
    left: usize,
}

#[derive(Debug)]
struct ScriptFile {
    path: String,
    lines: IntoIter<(usize, String)>,
}

/// A line to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScriptLine {
    /// Where it stands.
    pub(super) place: String,
    /// The line itself.
    pub(super) line: String,
}

impl Script {
    /// The commands of the file `path`.
    ///
    /// # Errors
    ///
    /// When it can't be read, `EINVAL` when it is no regular file, `EFBIG` when it is too long.
    pub(super) fn load(path: &Path) -> Result<Self, Errno> {
        let mut script = Self { files: Vec::new(), left: COMMANDS_MAX };
        script.descend(path)?;
        Ok(script)
    }

    /// Does the commands of another file before its own.
    ///
    /// # Errors
    ///
    /// As above, and `ELOOP` when too many files wait for it.
    pub(super) fn descend(&mut self, path: &Path) -> Result<(), Errno> {
        if self.files.len() >= DEPTH_MAX {
            return Err(Errno::ELOOP);
        }
        let text = read(path)?;
        let is_command = |line: &str| !line.is_empty() && !line.starts_with('#');
        let lines = text.lines().zip(1..).map(|(line, number)| (number, line.trim().to_owned()));
        let lines: Vec<_> = lines.filter(|(_, line)| is_command(line)).collect();
        self.files.push(ScriptFile { path: path.display().to_string(), lines: lines.into_iter() });
        Ok(())
    }

    /// The next line.
    ///
    /// # Errors
    ///
    /// `E2BIG` when there have been too many.
    pub(super) fn next(&mut self) -> Result<Option<ScriptLine>, Errno> {
        while let Some(file) = self.files.last_mut() {
            if let Some((number, line)) = file.lines.next() {
                self.left = self.left.checked_sub(1).ok_or(Errno::E2BIG)?;
                return Ok(Some(ScriptLine { place: format!("{}:{number}", file.path), line }));
            }
            self.files.pop();
        }
        Ok(None)
    }
}

/// Reads a file that does not make the loop wait, as a pipe would.
fn read(path: &Path) -> Result<String, Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    // To open a device may do something already.
    if !fs::metadata(path).map_err(errno)?.is_file() {
        return Err(Errno::EINVAL);
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(errno)?;
    let found = file.metadata().map_err(errno)?;
    if !found.is_file() {
        return Err(Errno::EINVAL);
    }
    let mut octets = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut octets).map_err(errno)?;
    if octets.len() as u64 > FILE_MAX {
        return Err(Errno::EFBIG);
    }
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(script: &mut Script) -> Vec<String> {
        std::iter::from_fn(|| script.next().unwrap()).map(|step| step.line).collect()
    }

    #[test]
    fn comments_and_blanks_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rc");
        fs::write(&path, "# a\n\n  port/create 5 \n\t#b\r\nshowinfo").unwrap();
        let mut script = Script::load(&path).unwrap();
        let first = script.next().unwrap().unwrap();
        assert_eq!((first.line.as_str(), first.place), ("port/create 5", format!("{}:3", path.display())));
        assert_eq!(lines(&mut script), ["showinfo"]);
    }

    #[test]
    fn files_load_files_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::write(&one, "a\nb\n").unwrap();
        fs::write(&two, "c\n").unwrap();
        let mut script = Script::load(&one).unwrap();
        assert_eq!(script.next().unwrap().unwrap().line, "a");
        script.descend(&two).unwrap();
        assert_eq!(lines(&mut script), ["c", "b"]);

        let mut script = Script::load(&one).unwrap();
        for _ in 1..DEPTH_MAX {
            script.descend(&one).unwrap();
        }
        assert_eq!(script.descend(&one), Err(Errno::ELOOP));

        fs::write(&one, "a\n".repeat(COMMANDS_MAX)).unwrap();
        assert_eq!(lines(&mut Script::load(&one).unwrap()).len(), COMMANDS_MAX);
        fs::write(&one, "a\n".repeat(COMMANDS_MAX + 1)).unwrap();
        let mut script = Script::load(&one).unwrap();
        (0..COMMANDS_MAX).for_each(|_| assert!(script.next().unwrap().is_some()));
        assert_eq!(script.next(), Err(Errno::E2BIG));
    }

    #[test]
    fn only_short_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rc");
        assert_eq!(Script::load(&path).unwrap_err(), Errno::ENOENT);
        assert_eq!(Script::load(folder.path()).unwrap_err(), Errno::EINVAL);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Script::load(&path).unwrap_err(), Errno::EINVAL);
        let path = folder.path().join("long");
        let max = usize::try_from(FILE_MAX).unwrap();
        fs::write(&path, "#".repeat(max)).unwrap();
        Script::load(&path).unwrap();
        fs::write(&path, "#".repeat(max + 1)).unwrap();
        assert_eq!(Script::load(&path).unwrap_err(), Errno::EFBIG);
    }
}
