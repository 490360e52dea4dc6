//! A Linux guest (scripts/guest) that runs the test's shell commands.

use std::io::Write;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::hub::utf8;
use super::qemu::{Qemu, Version, asset};
use super::require::require;
use super::wait::wait_for;

/// A guest boots in some 3 s when the machine is idle.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Tests with guests take turns: emulated CPUs of several at once would only time each other out.
static TURN: Mutex<()> = Mutex::new(());

/// The turn of the calling test, or `None` if there is nothing to run guests with.
pub(crate) fn turn() -> Option<MutexGuard<'static, ()>> {
    let files = [asset("qemu10"), asset("vmlinuz"), asset("initrd")];
    require("qemu", &["setpriv", "qemu-system-x86_64"], &files)
        .then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(crate) struct Guest {
    qemu: Qemu,
    /// How much of the command line's output has been read.
    seen: usize,
}

impl Guest {
    /// Starts to boot; `net` is the arguments for its network card, `address` goes like 10.0.0.1/24.
    pub(crate) fn start(version: Version, net: &[String], address: &str, mtu: u16) -> Self {
        let kernel = asset("vmlinuz");
        let initrd = asset("initrd");
        let append = format!("console=ttyS0 quiet panic=-1 ip={address} mtu={mtu}");
        let mut args = vec!["-machine", "q35", "-m", "256"];
        args.extend(["-kernel", utf8(&kernel), "-initrd", utf8(&initrd), "-append", &append]);
        args.extend(["-serial", "file:/dev/stderr", "-serial", "stdio"]);
        args.extend(net.iter().map(String::as_str));
        Self { qemu: Qemu::start(version, &args, Stdio::piped()), seen: 0 }
    }

    /// Waits until it obeys.
    pub(crate) fn booted(&mut self) {
        let seen = wait_for("a guest to boot", BOOT_LIMIT, || {
            let text = self.qemu.process().stdout();
            text.find("ready\n").map(|start| start + "ready\n".len())
        });
        self.seen = seen;
    }

    /// Runs a command that has to succeed and gives its output.
    pub(crate) fn run(&mut self, command: &str) -> String {
        writeln!(self.qemu.process().stdin(), "{command}").expect("the guest reads its commands");
        let what = format!("a guest to run: {command}");
        let (seen, output, status) = wait_for(&what, COMMAND_LIMIT, || {
            let text = self.qemu.process().stdout();
            let (output, status) = text[self.seen..].strip_suffix('\n')?.rsplit_once('=')?;
            let status: u8 = status.parse().ok()?;
            Some((text.len(), output.to_owned(), status))
        });
        self.seen = seen;
        assert_eq!(status, 0, "a guest's {command} said {output}");
        output
    }

    pub(crate) fn qemu(&mut self) -> &mut Qemu {
        &mut self.qemu
    }
}
