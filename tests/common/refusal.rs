//! Hubs that can't start.

use std::path::Path;
use std::process::Stdio;

use super::daemon::Daemon;

/// Starts a hub that can't, and gives the one line that it says.
pub(crate) fn refusal(runtime: &Path, args: &[&str]) -> String {
    refusal_by(runtime, r#"exec "$@""#, args)
}

pub(crate) fn refusal_by(runtime: &Path, script: &str, args: &[&str]) -> String {
    refusal_with(runtime, script, args, Stdio::null())
}

pub(crate) fn refusal_with(runtime: &Path, script: &str, args: &[&str], stdin: Stdio) -> String {
    let mut daemon = Daemon::launch(runtime, script, &[&["--no-tcp"], args].concat(), stdin);
    let status = daemon.exit();
    let line = daemon.line("qhub: ");
    assert_eq!(status.code(), Some(1), "{line}");
    assert_eq!(daemon.stdout(), "", "it promised something");
    line
}
