//! The console of `qhub vde_switch`, by the programs that people and scripts use it with. What is asked of it is asked of
//! VDE's own, too: the answers are to be the same.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::common::hub::{folder, utf8};
use crate::common::process::Process;
use crate::common::require::require;
use crate::common::vde::{Plug, Switch, have_vde, vdecmd};
use crate::common::wait::{LIMIT, wait_for};
use crate::common::wire::{BROADCAST, Station, frame, mac, settle};

/// What unixterm prints when the console waits for a command.
const PROMPT: &str = "\nvde$ ";

/// Both switches: what to start, and how.
fn both() -> [(&'static str, &'static [&'static str]); 2] {
    [("vde_switch", &[]), (env!("CARGO_BIN_EXE_qhub"), &["vde_switch"])]
}

/// A switch with its console, either VDE's or the one under test.
struct Managed {
    switch: Switch,
    vde: String,
    console: String,
    _place: TempDir,
}

impl Managed {
    fn start((program, args): (&str, &[&str])) -> Self {
        let place = folder();
        let [vde, console] = ["vde", "console"].map(|name| utf8(&place.path().join(name)).to_owned());
        let mut command = Process::command(program);
        let switch = Switch::spawn(command.args(args).args(["-s", &vde, "-M", &console]), Path::new(&vde));
        Self { switch, vde, console, _place: place }
    }

    fn vdecmd(&self, command: &str) -> String {
        vdecmd(&self.console, command).replace(&self.vde, "FOLDER")
    }
}

/// A unixterm at a console.
struct Terminal(Process);

impl Terminal {
    fn new(managed: &Managed) -> Self {
        let mut unixterm = Process::command("unixterm");
        let unixterm = Process::spawn("unixterm", unixterm.arg(&managed.console).stdin(Stdio::piped()));
        wait_for("a prompt", LIMIT, || unixterm.stdout().ends_with(PROMPT).then_some(()));
        Self(unixterm)
    }

    /// What the console says to a command.
    fn ask(&mut self, command: &str) -> String {
        let seen = self.0.stdout().len();
        self.0.type_line(command);
        wait_for(&format!("an answer to {command}"), LIMIT, || {
            let said = self.0.stdout()[seen..].to_owned();
            said.ends_with(PROMPT).then_some(said)
        })
    }

    /// Waits until the console has said so of itself, and gives all that it has since `seen`.
    fn hears(&self, seen: usize, last: &str) -> String {
        wait_for(&format!("the console to tell {last}"), LIMIT, || {
            let said = self.0.stdout()[seen..].to_owned();
            (said.ends_with('\n') && said.contains(last)).then_some(said)
        })
    }
}

/// Without what differs from run to run: numbers of processes, files and buckets, and ages.
fn plain(text: &str) -> String {
    let labels = ["pid", "FD", "ID", "Hash:", "age"];
    labels.iter().fold(text.to_owned(), |text, label| without_numbers(&text, label))
}

/// Without the numbers behind `label`, and what stands between.
fn without_numbers(text: &str, label: &str) -> String {
    let mut parts = text.split(label);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches([' ', '=']).trim_start_matches(|char: char| char.is_ascii_digit());
        text + label + rest
    })
}

#[test]
fn answers_are_vde_switchs_own() {
    if !have_vde() {
        return;
    }
    let switches = both().map(Managed::start);
    let mut terminals = switches.each_ref().map(Terminal::new);
    // Whose it is stands in the second line.
    let [theirs, ours] = terminals.each_ref().map(|terminal| terminal.0.stdout());
    let greeting = |said: &str| {
        said.lines().map(str::to_owned).enumerate().filter(|(at, _)| *at != 1).collect::<Vec<_>>()
    };
    assert_eq!(greeting(&ours), greeting(&theirs));
    let plugs = switches.each_ref().map(|switch| {
        let mut plugs = [Plug::start(&[&switch.vde]), Plug::start(&[&format!("{}[7]", switch.vde)])];
        let [one, other] = &mut plugs;
        settle(one, other);
        plugs
    });
    let commands = [
        "port/showinfo",
        "hash/find 02:71:68:00:00:09",
        "nonsense",
        "port/nonsense",
        "",
        "port/create 5",
        "port/create 5",
        "port/allocatable 5 1",
        "port/remove 5",
        "port/remove 5",
        "port/remove 7",
        "port/create 40",
        "port/setnumports 50",
        "port/create 40",
        "port/remove 40",
        "port/setnumports 3",
        "port/setnumports 0",
        "port/setuser 7 nosuch",
        "port/setuser 7 root",
        "port/setgroup 7 nogroup",
        "port/setuser 9 root",
        "port/resetcounter 7",
        "port/epclose 7 99",
        "port/print 7",
        "port/print 9",
        "port/sethub 1",
        "port/showinfo",
        "port/sethub 0",
        "hash/setexpire 60",
        "vlan/print",
    ];
    let different: Vec<[String; 3]> = commands
        .iter()
        .filter_map(|command| {
            let [theirs, ours] = terminals.each_mut().map(|terminal| plain(&terminal.ask(command)));
            (ours != theirs).then(|| [(*command).to_owned(), theirs, ours])
        })
        .collect();
    assert!(different.is_empty(), "{different:#?}");
    // VDE's own names the port above here.
    let [theirs, ours] = terminals.each_mut().map(|terminal| terminal.ask("hash/find 02:71:68:00:00:f1"));
    assert_eq!(plain(&ours), plain(&theirs).replace("port: 002", "port: 001"));
    drop(plugs);
    for mut terminal in terminals {
        terminal.0.type_line("logout");
        assert!(terminal.0.exit(LIMIT).success());
    }
    for switch in switches {
        switch.switch.stop();
    }
}

/// VDE's own answers the first.
#[test]
fn commands_that_come_at_once_are_all_answered() {
    if !have_vde() {
        return;
    }
    let [_, ours] = both();
    let switch = Managed::start(ours);
    let mut terminal = Terminal::new(&switch);
    let seen = terminal.0.stdout().len();
    terminal.0.type_line("port/showinfo\nnonsense\nport/create 5\nport/create 5");
    let said = wait_for("four answers", LIMIT, || {
        let said = terminal.0.stdout()[seen..].to_owned();
        (said.matches(PROMPT).count() == 4).then_some(said)
    });
    let answers: Vec<&str> =
        said.split(PROMPT).map(|answer| answer.lines().last().unwrap_or_default()).collect();
    let expected = ["1000 Success", "1038 Function not implemented", "1000 Success", "1017 File exists", ""];
    assert_eq!(answers, expected, "{said}");
    switch.switch.stop();
}

#[test]
fn events_are_vde_switchs_own() {
    if !have_vde() {
        return;
    }
    let [theirs, ours] = both().map(|which| {
        let switch = Managed::start(which);
        let mut terminal = Terminal::new(&switch);
        for category in ["port/+", "port/-", "port/descr", "port/ep/+", "port/ep/-", "hash/+"] {
            assert!(terminal.ask(&format!("debug/add {category}")).contains("1000 Success"), "{category}");
        }
        let mut seen = terminal.0.stdout().len();
        let mut heard = String::new();
        let mut tell = |last: &str| {
            heard += &terminal.hears(seen, last);
            seen = terminal.0.stdout().len();
        };
        let mut plug = Plug::start(&[&switch.vde]);
        tell("port/descr");
        plug.send(&frame(BROADCAST, mac(1), 60, 1));
        tell("hash/+");
        plug.hang_up();
        tell("port/- ");
        switch.switch.stop();
        plain(&heard)
    });
    assert_eq!(ours, theirs);
}

#[test]
fn vdecmd_tells_what_it_tells_of_vde_switch() {
    if !have_vde() {
        return;
    }
    let switches = both().map(Managed::start);
    for command in ["ds/showinfo", "port/showinfo", "port/print", "nonsense"] {
        let [theirs, ours] = switches.each_ref().map(|switch| switch.vdecmd(command));
        assert_eq!(plain(&ours), plain(&theirs), "{command}");
    }
    for mut switch in switches {
        assert!(switch.vdecmd("showinfo").contains(" uptime "), "{}", switch.vdecmd("showinfo"));
        switch.vdecmd("shutdown");
        switch.switch.process().exit(LIMIT);
        assert!(!Path::new(&switch.vde).exists() && !Path::new(&switch.console).exists());
    }
}

#[test]
fn vdeterm_talks_to_it() {
    if !have_vde() || !require("vde", &["script"], &[]) {
        return;
    }
    for which in both() {
        let switch = Managed::start(which);
        let mut terminal = Process::command("script");
        let vdeterm = format!("vdeterm {}", switch.console);
        let mut terminal =
            Process::spawn("vdeterm", terminal.args(["-qec", &vdeterm, "/dev/null"]).stdin(Stdio::piped()));
        let prompt = format!("vde[{}]: ", switch.console);
        wait_for("a prompt", LIMIT, || terminal.stdout().contains(&prompt).then_some(()));
        terminal.type_line("port/showinfo");
        wait_for("an answer", LIMIT, || terminal.stdout().contains("Success").then_some(()));
        assert!(terminal.stdout().contains("Numports=32"), "{}", terminal.stdout());
        // It has learned the commands from the help.
        write!(terminal.stdin(), "port/sh\t").expect("script reads what is typed");
        wait_for("a completion", LIMIT, || {
            (terminal.stdout().matches("port/showinfo ").count() == 1).then_some(())
        });
        terminal.type_line("");
        wait_for("an answer", LIMIT, || {
            (terminal.stdout().matches("Numports=32").count() == 2).then_some(())
        });
        terminal.type_line("logout");
        terminal.exit(LIMIT);
        switch.switch.stop();
    }
}
