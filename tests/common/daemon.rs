//! The hub under hard conditions: started by a shell that can limit it, redirect it or change its user, and looked at
//! through `/proc` and through the table that SIGUSR1 prints.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use socket2::{Domain, SockAddr, Socket, Type};

use super::process::Process;
use super::wait::{LIMIT, pause, wait_for};
use super::wire::{Station, Wire, frame, mac, settle};

/// What `/proc` counts CPU time in, on every Linux.
const TICK: Duration = Duration::from_millis(10);

pub(crate) struct Daemon {
    process: Process,
    pid: u32,
    socket: PathBuf,
}

impl Daemon {
    /// Starts a hub that serves only what `args` say, and returns when it does.
    pub(crate) fn start(runtime: &Path, args: &[&str]) -> Self {
        Self::start_by(runtime, r#"exec "$@""#, args)
    }

    /// The same, where `script` is what a shell does to become the hub, `"$@"`.
    pub(crate) fn start_by(runtime: &Path, script: &str, args: &[&str]) -> Self {
        Self::launch(runtime, script, &[&["--no-tcp"], args].concat(), Stdio::null()).served()
    }

    /// Returns when it has said how to join.
    pub(crate) fn served(mut self) -> Self {
        wait_for("qhub to serve", LIMIT, || {
            if let Some(status) = self.process.try_exit() {
                panic!("qhub ended at once: {status}");
            }
            self.stdout().ends_with("Ctrl-C stops.\n").then_some(())
        });
        self
    }

    /// Starts a hub and waits for nothing but its process.
    pub(crate) fn launch(runtime: &Path, script: &str, args: &[&str], stdin: Stdio) -> Self {
        let process = Process::spawn(
            "qhub",
            Process::command("sh")
                .args(["-c", &format!("echo $$; {script}"), "sh", env!("CARGO_BIN_EXE_qhub")])
                .args(args)
                .env("XDG_RUNTIME_DIR", runtime)
                .stdin(stdin),
        );
        let pid = wait_for("a shell to tell its pid", LIMIT, || {
            process.stdout().split_once('\n').map(|(pid, _)| pid.parse().expect("a pid"))
        });
        let name = args.iter().skip_while(|arg| **arg != "--name").nth(1).unwrap_or(&"default");
        Self { process, pid, socket: runtime.join(format!("qhub/{name}/qhub.sock")) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The unix socket that its instance serves.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::unix(self.socket())
    }

    /// What it has printed, after the pid.
    pub(crate) fn stdout(&self) -> String {
        self.process.stdout().split_once('\n').expect("the pid came first").1.to_owned()
    }

    pub(crate) fn log(&self) -> String {
        self.process.stderr()
    }

    /// Waits until the log has a whole line with `what`, and gives the line.
    pub(crate) fn line(&self, what: &str) -> String {
        wait_for(&format!("the log to say '{what}'"), LIMIT, || {
            let log = self.log();
            log.split_inclusive('\n')
                .find(|line| line.ends_with('\n') && line.contains(what))
                .map(|line| line.trim_end().to_owned())
        })
    }

    /// How many lines of the log have `what`.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.log().lines().filter(|line| line.contains(what)).count()
    }

    /// What it serves TCP on, where that is not a port of the test's choice.
    pub(crate) fn tcp(&self) -> SocketAddr {
        let text = self.stdout();
        let port = text.split("connect=127.0.0.1:").nth(1).and_then(|rest| rest.lines().next());
        (Ipv4Addr::LOCALHOST, port.and_then(|port| port.parse().ok()).expect("a TCP port was printed")).into()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn exit(&mut self) -> ExitStatus {
        self.process.exit(LIMIT)
    }

    /// How it ended, once it has.
    pub(crate) fn try_exit(&mut self) -> Option<ExitStatus> {
        self.process.try_exit()
    }

    /// Asks for its end and sees a good one.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.exit();
        assert!(status.success(), "qhub ended with {status}");
        assert!(!self.socket().exists(), "qhub left its socket file behind");
    }

    /// Its open files.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(self.proc("fd")).expect("the hub lives").count()
    }

    /// The number that its next open file gets.
    pub(crate) fn next_file(&self) -> usize {
        (0..).find(|number| !self.proc(&format!("fd/{number}")).is_symlink()).expect("numbers do not end")
    }

    /// Waits until it has `files` open files again.
    pub(crate) fn files_return_to(&self, files: usize) {
        wait_for(&format!("qhub to have {files} files open again"), LIMIT, || {
            (self.files() == files).then_some(())
        });
    }

    /// Resident memory, in KiB.
    pub(crate) fn memory(&self) -> usize {
        let status = fs::read_to_string(self.proc("status")).expect("the hub lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).expect("the hub lives");
        let (_, rest) = stat.rsplit_once(')').expect("its name is in parentheses");
        let ticks = |field: &str| field.parse::<u32>().expect("a number of ticks");
        // proc(5): utime and stime are fields 14 and 15, and the name was field 2.
        rest.split_whitespace().skip(11).take(2).map(|field| TICK * ticks(field)).sum()
    }

    /// Does it use next to no CPU time for a while in which nothing happens to it?
    pub(crate) fn idles(&self) -> bool {
        let before = self.cpu();
        pause(Duration::from_secs(1));
        self.cpu() - before <= Duration::from_millis(200)
    }

    fn proc(&self, what: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(what)
    }

    /// Its state at this moment.
    pub(crate) fn table(&self) -> Table {
        let seen = self.log().len();
        self.signal(Signal::SIGUSR1);
        wait_for("qhub to print its table", LIMIT, || Table::parse(&self.log()[seen..]))
    }

    /// Asks for the state until `wanted` finds in it what it wants.
    pub(crate) fn table_with<T>(&self, what: &str, wanted: impl Fn(&Table) -> Option<T>) -> T {
        wait_for(what, LIMIT, || wanted(&self.table()))
    }
}

/// What SIGUSR1 prints.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) ports: Vec<Row>,
    /// The sum over the ports that are gone.
    pub(crate) gone: Row,
    /// What was lost at the doors, by door and reason.
    pub(crate) doors: BTreeMap<String, BTreeMap<String, u64>>,
    /// Octets of memory in all queues.
    pub(crate) memory: u64,
    /// The line about the filtering database, and one for each station.
    pub(crate) fdb: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) peer: String,
    pub(crate) rx_frames: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_frames: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) dropped: u64,
    /// Frames dropped, by reason.
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) queued_frames: u64,
}

impl Table {
    /// The first table in `log`; `None` while it is not whole.
    pub(crate) fn parse(log: &str) -> Option<Self> {
        let (head, rest) = log.split_once(" octets\n").filter(|(head, _)| head.contains(" ports, their"))?;
        let memory = head.rsplit(' ').next()?.parse().ok()?;
        let count: usize = head.split(" ports, their").next()?.rsplit(' ').next()?.parse().ok()?;
        let lines = rest.split_inclusive('\n').map_while(|line| line.strip_suffix('\n'));
        let mut lines = lines.map(str::trim_start).peekable();
        let ports: Vec<Row> = lines.by_ref().take(count).map(Row::parse).collect();
        let gone = lines.next_if(|line| line.starts_with("ports gone:")).map(Row::parse).unwrap_or_default();
        let doors = std::iter::from_fn(|| lines.next_if(|line| !line.starts_with("fdb: "))).map(parse_door);
        let doors = doors.collect();
        let title = lines.next()?;
        let stations: usize = title.strip_prefix("fdb: ")?.split(' ').next()?.parse().ok()?;
        let fdb: Vec<String> = [title].into_iter().chain(lines.take(stations)).map(str::to_owned).collect();
        (fdb.len() == 1 + stations).then_some(Self { ports, gone, doors, memory, fdb })
    }

    /// Frames dropped for `reason`, wherever that was.
    pub(crate) fn dropped_for(&self, reason: &str) -> u64 {
        let rows = self.ports.iter().chain([&self.gone]).map(|row| &row.drops);
        rows.chain(self.doors.values()).filter_map(|drops| drops.get(reason)).sum()
    }

    /// Frames dropped at the doors for `reason`.
    pub(crate) fn lost_for(&self, reason: &str) -> u64 {
        self.doors.values().filter_map(|drops| drops.get(reason)).sum()
    }

    pub(crate) fn port(&self, name: &str) -> &Row {
        self.ports.iter().find(|port| port.name == name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

impl Row {
    fn parse(line: &str) -> Self {
        Self::try_parse(line).unwrap_or_else(|| panic!("a line of the table reads '{line}'"))
    }

    fn try_parse(line: &str) -> Option<Self> {
        let (title, counters) = line.split_once(": rx ")?;
        let (name, peer) = title.split_once(" (").unwrap_or((title, ")"));
        let (counts, rest) = counters.split_once(" (")?;
        let (reasons, rest) = rest.split_once(')')?;
        let numbers = |text: &str| -> Vec<u64> {
            text.split([' ', ',']).filter_map(|word| word.parse().ok()).collect()
        };
        let [rx_frames, rx_bytes, tx_frames, tx_bytes, dropped] = numbers(counts)[..] else { return None };
        let drops = parse_drops(reasons)?;
        // Behind the times that it was congested and overloaded.
        let queued_frames = numbers(rest).get(2).copied().unwrap_or(0);
        Some(Self {
            name: name.to_owned(),
            peer: peer.trim_end_matches(')').to_owned(),
            rx_frames,
            rx_bytes,
            tx_frames,
            tx_bytes,
            dropped,
            drops,
            queued_frames,
        })
    }

    /// Frames dropped for `reason`.
    pub(crate) fn dropped_for(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or(0)
    }

    /// What became of the frames that were to leave here.
    pub(crate) fn accounted(&self) -> u64 {
        self.tx_frames + self.queued_frames + self.dropped
    }
}

/// A door's line: `udp:127.0.0.1:5000: dropped 1 (stranger=1)`.
fn parse_door(line: &str) -> (String, BTreeMap<String, u64>) {
    let parsed = line.rsplit_once(": dropped ").and_then(|(door, counts)| {
        let reasons = counts.split_once('(')?.1.strip_suffix(')')?;
        Some((door.to_owned(), parse_drops(reasons)?))
    });
    parsed.unwrap_or_else(|| panic!("a line of the table reads '{line}'"))
}

fn parse_drops(reasons: &str) -> Option<BTreeMap<String, u64>> {
    let pairs = reasons.split(' ').filter_map(|reason| reason.split_once('='));
    pairs.map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect()
}

/// Two stations that mind their own business, whatever happens around them.
pub(crate) struct Bystanders {
    pub(crate) one: Wire,
    pub(crate) other: Wire,
    turn: u8,
}

const ONE: [u8; 6] = mac(0xe1);
const OTHER: [u8; 6] = mac(0xe2);

impl Bystanders {
    /// Lets two stations join; they are ports 1 and 2 if nobody else did before.
    pub(crate) fn join(daemon: &Daemon) -> Self {
        let mut pair = Self { one: daemon.connect(), other: daemon.connect(), turn: 0 };
        settle(&mut pair.one, &mut pair.other);
        // The first frame each way makes the two known, and the rest goes nowhere else.
        pair.talk();
        pair
    }

    /// Forgets what has arrived from others.
    pub(crate) fn drain(&mut self) {
        settle(&mut self.one, &mut self.other);
    }

    /// Each sends a frame that the other receives.
    pub(crate) fn talk(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        let there = frame(OTHER, ONE, 100 + usize::from(self.turn), self.turn);
        self.one.send(&there);
        self.other.receive_if("a bystander's frame", |frame| frame == there);
        let back = frame(ONE, OTHER, 1400, self.turn);
        self.other.send(&back);
        self.one.receive_if("a bystander's frame", |frame| frame == back);
    }
}

/// `frame` as it travels on a stream.
pub(crate) fn record(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).expect("a frame's length fits");
    [&length.to_be_bytes(), frame].concat()
}

/// A connection without manners: to the hub's unix socket, or to `tcp`.
pub(crate) fn connect_raw(daemon: &Daemon, tcp: Option<SocketAddr>) -> Socket {
    let (domain, address) = match tcp {
        Some(address) => (Domain::for_address(address), address.into()),
        None => (Domain::UNIX, SockAddr::unix(daemon.socket()).expect("a path that fits")),
    };
    let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
    socket.connect(&address).unwrap_or_else(|error| panic!("connect to {address:?}: {error}"));
    socket.set_read_timeout(Some(LIMIT)).expect("a time-out can be set");
    socket.set_write_timeout(Some(LIMIT)).expect("a time-out can be set");
    socket
}

/// Waits until the hub has closed `socket`, and gives what came before.
pub(crate) fn read_to_end(mut socket: &Socket) -> Vec<u8> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the hub did not close the connection: {error}"),
    }
    bytes
}

/// A pipe that is full and that nobody reads.
pub(crate) fn full_pipe(path: &Path) -> File {
    mkfifo(path, Mode::S_IRWXU).expect("a pipe in a new folder");
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
    let mut pipe = options.open(path).expect("open the pipe");
    while pipe.write(&[b'.'; 4096]).is_ok() {}
    while pipe.write(b".").is_ok() {}
    pipe
}
