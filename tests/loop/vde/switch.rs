//! A hub that is a VDE switch, and clients that join it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use qhub::bridge::Mode;
use tempfile::TempDir;

use crate::net::Net;
use crate::require::require;
use crate::vde_client::{Answer, Client};

/// A VDE switch.
pub(crate) struct Switch {
    pub(crate) net: Net,
    pub(crate) folder: PathBuf,
    _parent: TempDir,
}

impl Switch {
    pub(crate) fn new() -> Self {
        Self::within(Net::new(Mode::Switch), "")
    }

    /// The hub `net` as a switch, with `options`.
    pub(crate) fn within(mut net: Net, options: &str) -> Self {
        let parent = parent();
        let folder = parent.path().join("vde");
        net.open(&format!("vde:{}{options}", folder.display()));
        Self { net, folder, _parent: parent }
    }

    /// A switch, and clients of it whose stations, 0 and up, were heard already.
    pub(crate) fn introduced<const N: usize>() -> (Self, [Client; N]) {
        let mut it = Self::new();
        let clients = std::array::from_fn(|_| it.join(None));
        for (station, client) in clients.iter().enumerate() {
            client.send(&crate::wire::broadcast(station));
        }
        it.net.settle();
        clients.iter().for_each(|client| drop(client.read_all()));
        (it, clients)
    }

    /// A client that has come and said nothing yet.
    pub(crate) fn come(&self) -> Client {
        Client::come(&self.folder)
    }

    /// A client that has joined.
    pub(crate) fn join(&mut self, port: Option<u32>) -> Client {
        self.try_join(port).unwrap_or_else(|| panic!("port {port:?} was refused"))
    }

    /// A client that has joined, unless it was refused.
    pub(crate) fn try_join(&mut self, port: Option<u32>) -> Option<Client> {
        let mut client = self.come();
        client.ask(port);
        self.net.settle();
        match client.answer() {
            Answer::Socket(socket) => {
                client.plug_into(&socket);
                Some(client)
            }
            Answer::Refused => {
                fs::remove_file(&client.path).expect("its own file");
                None
            }
            Answer::None => panic!("it hangs"),
        }
    }

    /// What a client is told that says this at once.
    pub(crate) fn answer_to(&mut self, request: &[u8]) -> Answer {
        let mut client = self.come();
        client.say(request);
        self.net.settle();
        let answer = client.answer();
        fs::remove_file(&client.path).expect("its own file");
        answer
    }

    /// The names of the files in its folder.
    pub(crate) fn files(&self) -> Vec<String> {
        files(&self.folder)
    }

    /// The stations that it knows, with their ports' names.
    pub(crate) fn stations(&mut self) -> Vec<(u8, String)> {
        let rows = self.net.snapshot().fdb.into_iter();
        rows.map(|(row, port)| (row.mac.0[5], port)).collect()
    }
}

/// Is this root? Says so if not.
pub(crate) fn is_root() -> bool {
    let missing = if geteuid().is_root() { vec![] } else { vec!["/proc/the-rights-of-root".into()] };
    require("root", &[], &missing)
}

/// A folder that is its owner's alone, whatever other tests do to the umask meanwhile.
pub(crate) fn parent() -> TempDir {
    let mut folder = tempfile::Builder::new();
    folder.permissions(Permissions::from_mode(0o700)).tempdir().expect("a folder")
}

/// The names of the files in `folder`.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Lets the hub read what means nothing, and leaves no trace.
pub(crate) fn hear_all(net: &mut Net) {
    for _ in 0..200 {
        net.turn();
    }
    net.settle();
}
