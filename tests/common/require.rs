//! Tests against real clients run where the clients are. `QHUB_REQUIRE=qemu,vde,root` makes a missing one a failure.

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::thread;

/// True if all `programs` (found on the PATH) and `files` are there, which together make up `client`. If not, says so
/// past the harness's capture, or panics if `client` is required.
pub(crate) fn require(client: &str, programs: &[&str], files: &[PathBuf]) -> bool {
    let missing_program = programs.iter().copied().find(|program| !on_path(program));
    let missing_file = files.iter().find(|file| !file.exists()).map(|file| file.display().to_string());
    let Some(missing) = missing_program.map(str::to_owned).or(missing_file) else {
        return true;
    };
    let required = env::var("QHUB_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == client),
        "{missing} is missing and QHUB_REQUIRE has {client}; run scripts/setup as root"
    );
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    // In one piece, as other tests print at the same time.
    let notice = format!("skipped: {test} needs {missing}; run scripts/setup as root\n");
    let _ = std::io::stderr().write_all(notice.as_bytes());
    false
}

fn on_path(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).is_file())
}
