//! `vde_switch`: what VDE's own switch does, for those who call it by that name. It has the original's command
//! line, its console, its daemon mode, and a VDE switch of the [`hub`]; nothing else is served.
//!
//! It stays the user who started it, root too: it has to reach its clients' sockets, wherever these are.

mod answer;
mod args;
mod background;
mod command;
mod console;
mod events;
mod execute;
mod input;
mod menu;
mod pidfile;
mod script;
mod session;
mod stdio;
mod users;
mod watch;

use std::env;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use log::{info, warn};
use mio::{Interest, Token};
use nix::errno::Errno;
use nix::libc::SIGHUP;
use signal_hook_mio::v1_0::Signals as Hangups;

use crate::bridge::MAX_PORTS;
use crate::daemon::{QUEUE_MEMORY, raise_file_limit};
use crate::hub::{self, Door, Hub, HubConfig};
use crate::instance::random_mac;
use crate::logging::Log;
use crate::signals::Signals;
use crate::turn::{self, Companion};
use answer::Answer;
pub use args::Args;
use background::Departure;
use command::{Command, Lack};
use console::Console;
use execute::{Facts, Switch};
use pidfile::PidFile;
use script::{COMMANDS_MAX, Script, ScriptLine};
use stdio::Stdio;

/// The poll's tokens for what is not the hub's own. There are two for signals.
const SIGNALS: usize = hub::OUTSIDE;
const HANGUPS: usize = SIGNALS + 2;
const CONSOLE: usize = HANGUPS + 1;

/// Runs a switch until a signal, a console, or the end of stdin ends it.
///
/// # Errors
///
/// When something that was asked for can't be opened; says what to do.
pub fn run(args: &Args) -> Result<()> {
    // There must be no thread yet.
    let mut departure = if args.daemon { Some(Departure::begin()?) } else { None };
    let log = if args.daemon {
        Log::to_syslog(c"vde_switch", "info")
    } else {
        // Whoever types commands reads the answers.
        Log::start(if is_typed(args) { "warn" } else { "info" })
    };
    let log = log.context("start to log")?;
    let result = serve(args, departure.as_mut());
    if let Err(error) = &result
        && args.daemon
    {
        log::error!("{error:#}");
    }
    log.flush();
    if let (Err(_), Some(departure)) = (&result, departure) {
        departure.give_up();
    }
    result
}

/// Will somebody type commands at a terminal?
fn is_typed(args: &Args) -> bool {
    !args.nostdin && io::stdin().is_terminal()
}

fn serve(args: &Args, departure: Option<&mut Departure>) -> Result<()> {
    let now = hub::now();
    // Before anything is served: what happens to stdin later is meant.
    let is_heard = departure.is_none() && !args.nostdin;
    let stdio = if is_heard { Stdio::open().context("read stdin")? } else { None };
    if is_heard && stdio.is_none() {
        info!("stdin is at its end, so it is not listened to");
    }
    raise_file_limit();
    let mut pid_file = args.pidfile.as_deref().map(PidFile::prepare).transpose()?;
    let config = HubConfig { bridge: args.bridge(), max_ports: MAX_PORTS, memory: QUEUE_MEMORY };
    let mut hub = Hub::new(config).context("make the poll")?;
    // From here on a signal leaves no socket file behind.
    let mut signals = Signals::catch(hub.registry(), Token(SIGNALS))?;
    let mut hangups = Hangups::new([SIGHUP])?;
    hub.registry().register(&mut hangups, Token(HANGUPS), Interest::READABLE)?;
    open(args, &mut hub, now)?;
    let mut console = Console::new(facts(args, now), Token(CONSOLE));
    if let Some(path) = &args.mgmt {
        console
            .listen(path, args.mgmtmode, args.mgmtgroup.as_deref(), hub.registry())
            .context("console (--mgmt)")?;
    }
    let is_over = begin(args, &mut hub, console.facts(), now)?;
    if let Some(stdio) = stdio {
        console.converse(stdio, hub.registry(), now)?;
    }
    pid_file.as_mut().map_or(Ok(()), PidFile::publish)?;
    if let Some(departure) = departure {
        departure.arrive()?;
    }
    let mut beside = Beside { console: &mut console, hangups: &mut hangups, is_over };
    let result = turn::until_stopped(&mut hub, &mut signals, &mut beside);
    console.finish();
    result.map(drop)
}

/// Opens the switch, and the TAPs that it joins.
fn open(args: &Args, hub: &mut Hub, now: Instant) -> Result<()> {
    hub.add(Door::open(&args.switch(), now).context("--sock")?, now)?;
    for tap in args.taps() {
        hub.add_numbered(Door::open(tap, now).context("--tap")?, now)?;
    }
    Ok(())
}

fn facts(args: &Args, now: Instant) -> Facts {
    let folder = args.folder();
    Facts {
        mac: args.macaddr.unwrap_or_else(random_mac),
        started: now,
        folder: folder.canonicalize().unwrap_or(folder),
        socket_mode: args.socket_mode(),
        mgmt: args.mgmt.clone().map(|path| (path, args.mgmtmode)),
    }
}

/// Does the commands that a switch begins with. True when they end it.
fn begin(args: &Args, hub: &mut Hub, facts: &Facts, now: Instant) -> Result<bool> {
    let Some((path, script)) = find_script(args.rcfile.as_deref())? else { return Ok(false) };
    let mut switch = Switch { hub, facts, now };
    follow(&path, script, &mut switch)
}

/// The file that was asked for, or the first that there is of the usual ones.
fn find_script(asked: Option<&Path>) -> Result<Option<(PathBuf, Script)>> {
    if let Some(path) = asked {
        let script = Script::load(path).map_err(|errno| {
            let shown = path.display();
            anyhow!("read {shown}: {}; see that it is there, or leave out --rcfile", errno.desc())
        })?;
        return Ok(Some((path.to_owned(), script)));
    }
    let own = env::var_os("HOME").map(|home| PathBuf::from(home).join(".vde2/vde_switch.rc"));
    for path in own.into_iter().chain([PathBuf::from("/etc/vde2/vde_switch.rc")]) {
        match Script::load(&path) {
            Ok(script) => return Ok(Some((path, script))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => warn!("{} is left out: {}", path.display(), errno.desc()),
        }
    }
    Ok(None)
}

/// Does the commands of the file `path`: what goes wrong is a warning, but a switch that would join those who were to
/// be apart is none. True when they end the switch.
fn follow(path: &Path, mut script: Script, switch: &mut Switch<'_>) -> Result<bool> {
    let too_many = |_| anyhow!("{} has more than {COMMANDS_MAX} commands; leave some out", path.display());
    while let Some(ScriptLine { place, line }) = script.next().map_err(too_many)? {
        if let Some(lack) = Lack::of(&line) {
            bail!("{place}: {line}: {lack}; leave it out");
        }
        let answer = match Command::parse(&line) {
            Ok(Command::Shutdown) => return Ok(true),
            Ok(Command::Load(path)) => Answer::plain(script.descend(&path)),
            Ok(Command::Logout) => Answer::plain(Err(Errno::ENOSYS)),
            // Nobody listens to events.
            Ok(Command::Switch(command)) => switch.execute(&command, None),
            Err(errno) => Answer::plain(Err(errno)),
        };
        if let Err(errno) = answer.result {
            warn!("{place}: {line}: {}", errno.desc());
        }
    }
    Ok(false)
}

/// The console in the loop of its switch.
struct Beside<'a> {
    console: &'a mut Console,
    hangups: &'a mut Hangups,
    is_over: bool,
}

impl Companion for Beside<'_> {
    fn act(&mut self, hub: &mut Hub, now: Instant) {
        self.is_over |= self.console.serve(hub, now);
    }

    fn look(&mut self, hub: &Hub, now: Instant) -> bool {
        self.console.tell(hub, now);
        self.is_over
    }

    fn wake(&self, now: Instant) -> Option<Instant> {
        self.console.wake(now)
    }

    fn note(&mut self, token: Token) {
        self.console.note(token);
        // A terminal that is gone has ended stdin, too; in the background it means nothing.
        self.hangups.pending().for_each(drop);
    }
}
