//! A hub that is a VDE switch, two bystanders, and clients.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::daemon::{Bystanders, Daemon};
use crate::common::hub::{folder, utf8};
use crate::common::vde_client::{Answer, Client};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::Station;

/// A switch, and two who are not clients of it.
pub(super) struct Lab {
    pub(super) daemon: Daemon,
    pub(super) bystanders: Bystanders,
    /// The folder of the switch.
    pub(super) folder: PathBuf,
    pub(super) runtime: TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        Self::with(&[])
    }

    /// One that is started with `args` as well.
    pub(super) fn with(args: &[&str]) -> Self {
        Self::by(r#"exec "$@""#, args)
    }

    /// One that `script` starts.
    pub(super) fn by(script: &str, args: &[&str]) -> Self {
        let runtime = folder();
        let folder = runtime.path().join("vde");
        let spec = format!("vde:{}", utf8(&folder));
        let daemon = Daemon::start_by(runtime.path(), script, &[&[spec.as_str()], args].concat());
        let bystanders = Bystanders::join(&daemon);
        Self { daemon, bystanders, folder, runtime }
    }

    /// A client that has joined.
    pub(super) fn join(&self) -> Client {
        self.join_port(None)
    }

    pub(super) fn join_port(&self, port: Option<u32>) -> Client {
        let client = self.try_join(port);
        client.unwrap_or_else(|| panic!("port {port:?} was refused: {}", self.daemon.log()))
    }

    /// A client that has joined, unless it was refused.
    pub(super) fn try_join(&self, port: Option<u32>) -> Option<Client> {
        join(Client::come(&self.folder), port)
    }

    /// Waits until nobody is left but the bystanders, and nothing that was opened for anybody else.
    pub(super) fn alone_again(&mut self, files: usize) {
        self.daemon.table_with("all clients to go", |table| (table.ports.len() == 2).then_some(()));
        self.daemon.files_return_to(files);
        self.bystanders.drain();
        self.bystanders.talk();
    }
}

/// Lets a client that has come join, unless it is refused.
pub(super) fn join(mut client: Client, port: Option<u32>) -> Option<Client> {
    let request = client.request(port);
    // It may be sent away before it has said anything.
    let _ = client.control.write_all(&request);
    match answer(&mut client) {
        Answer::Socket(socket) => {
            client.plug_into(&socket);
            Some(client)
        }
        Answer::Refused | Answer::None => {
            // The switch may have done so.
            let _ = fs::remove_file(&client.path);
            None
        }
    }
}

/// What the switch says, once it does.
pub(super) fn answer(client: &mut Client) -> Answer {
    client.control.set_nonblocking(false).expect("an open socket");
    client.control.set_read_timeout(Some(LIMIT)).expect("a time-out can be set");
    let answer = client.answer();
    client.control.set_nonblocking(true).expect("an open socket");
    assert_ne!(answer, Answer::None, "it hangs");
    answer
}

/// Waits until so many lines of the log have `what`, which may come a little later.
pub(super) fn is_told(daemon: &Daemon, what: &str, times: usize) {
    let what_for = format!("the log to say '{what}' {times} times");
    wait_for(&what_for, LIMIT, || (daemon.count(what) >= times).then_some(()));
    assert_eq!(daemon.count(what), times, "{what}");
}

/// The names of what is in a folder.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("its entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

impl Station for Client {
    fn send(&mut self, frame: &[u8]) {
        wait_for("the hub to read", LIMIT, || self.try_send(frame).then_some(()));
    }

    fn try_receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        if let Some(frame) = self.read() {
            return Some(frame);
        }
        self.data.set_read_timeout(Some(limit)).expect("a time-out can be set");
        self.data.set_nonblocking(false).expect("an open socket");
        let frame = self.read();
        self.data.set_nonblocking(true).expect("an open socket");
        frame
    }
}
