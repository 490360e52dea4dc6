//! The command line of `vde_switch`, as its scripts write it: long options behind one dash too, and cut
//! short as long as it is clear which is meant (`getopt_long_only`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Command, CommandFactory, Parser};
use hub_protocol::mac::Mac;
use nix::unistd::geteuid;

use super::command::parse_mac;
use crate::bridge::{BridgeConfig, Mode};
use crate::cli::VDE_SWITCH;
use crate::config::{PortKind, PortOptions, PortSpec, Vde};

/// Where clients look for a switch of root's, and of anybody's.
const FOLDERS: [&str; 2] = ["/var/run/vde.ctl", "/tmp/vde.ctl"];

/// How long a silent station is remembered.
const AGEING: Duration = Duration::from_secs(300);

/// How many stations there is always room for.
const STATIONS: usize = 8192;

const HELP: &str = "\
Long options may have one dash and be cut short, as in -sock DIR and -daemon.

There is no spanning tree yet: --fstp and --priority are refused. The console speaks VDE's protocol; 'help'
there says what it knows.";

/// What `-v` says: programs look for the version of the original.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (qhub, in the place of VDE 2.3.2)");

/// A VDE switch, in the place of the original one.
#[derive(Debug, Parser)]
#[command(name = VDE_SWITCH, version = VERSION, disable_version_flag = true, args_override_self = true, after_help = HELP)]
pub struct Args {
    /// The folder that clients join by (/var/run/vde.ctl, or /tmp/vde.ctl without root)
    #[arg(short, long, visible_aliases = ["vdesock", "unix"], value_name = "DIR")]
    sock: Option<PathBuf>,
    /// Permissions of the sockets in it, octal (0600)
    #[arg(short, long, value_name = "MODE", value_parser = parse_socket_mode)]
    mode: Option<u32>,
    /// Permissions of the folder, octal; without it, those of the sockets let their users in
    #[arg(long, value_name = "MODE", value_parser = parse_folder_mode)]
    dirmode: Option<u32>,
    /// The group of users that folder and sockets belong to
    #[arg(short, long)]
    group: Option<String>,
    /// The highest number of a port
    #[arg(short, long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    numports: u16,
    /// Repeat every frame to every port
    #[arg(short = 'x', long)]
    hub: bool,
    /// Join a TAP, which is left up or down as it is; may be repeated
    #[arg(short, long = "tap", value_name = "IF", value_parser = parse_tap, action = ArgAction::Append)]
    taps: Vec<PortSpec>,
    /// Go to the background once it serves; log to syslog
    #[arg(short, long)]
    pub(super) daemon: bool,
    /// Write the process's number to this file once it serves
    #[arg(short, long, value_name = "FILE")]
    pub(super) pidfile: Option<PathBuf>,
    /// Console commands to begin with (~/.vde2/vde_switch.rc, or /etc/vde2/vde_switch.rc, if there is one)
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(super) rcfile: Option<PathBuf>,
    /// Serve the console on this unix socket, too
    #[arg(short = 'M', long, value_name = "PATH")]
    pub(super) mgmt: Option<PathBuf>,
    /// Permissions of that socket, octal
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = parse_socket_mode)]
    pub(super) mgmtmode: u32,
    /// The group of users that it belongs to
    #[arg(long, value_name = "GROUP")]
    pub(super) mgmtgroup: Option<String>,
    /// Read no commands from stdin, whose end would end the switch
    #[arg(long)]
    pub(super) nostdin: bool,
    /// The switch's own address, which 'showinfo' shows (a random one)
    #[arg(long, value_name = "MAC", value_parser = parse_own_mac)]
    pub(super) macaddr: Option<Mac>,
    /// Have room for this many stations; there is always room for 8192, and nothing gets faster by more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    hashsize: Option<u32>,
    /// Without effect: every console session may ask for events
    #[arg(short = 'D', long, value_name = "N")]
    debugclients: Option<u32>,
    /// Refused: there is no spanning tree
    #[arg(short = 'F', long)]
    fstp: bool,
    /// Refused, as above
    #[arg(long, value_name = "N")]
    priority: Option<String>,
    /// Print the version
    #[arg(short, long, action = ArgAction::Version)]
    version: Option<bool>,
}

impl Args {
    /// What the words behind the program's name say; ends the process with status 2 and a message when they
    /// are wrong.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Self {
        Self::parse_words(words).unwrap_or_else(|error| error.exit())
    }

    fn parse_words(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let options = Options::of(Self::command());
        let words = [VDE_SWITCH.into()].into_iter().chain(options.spell_out(words.into_iter().collect()));
        let args = Self::try_parse_from(words)?;
        if args.fstp || args.priority.is_some() {
            return Err(Self::command().error(
                ErrorKind::ArgumentConflict,
                "there is no spanning tree in qhub; leave out --fstp and --priority, and see that no two cables make a loop",
            ));
        }
        Ok(args)
    }

    /// The folder of the switch.
    pub(super) fn folder(&self) -> PathBuf {
        let default = if geteuid().is_root() { FOLDERS[0] } else { FOLDERS[1] };
        self.sock.clone().unwrap_or_else(|| PathBuf::from(default))
    }

    /// Permissions of the sockets in it.
    pub(super) fn socket_mode(&self) -> u32 {
        self.mode.unwrap_or_else(|| self.dirmode.map_or(0o600, |mode| mode & 0o666))
    }

    /// The switch itself.
    pub(super) fn switch(&self) -> PortSpec {
        let vde = Vde {
            mode: self.dirmode.or_else(|| self.mode.map(folder_mode)),
            socket_mode: Some(self.socket_mode()),
            group: self.group.clone(),
            ports: self.numports,
            ..Vde::new(self.folder())
        };
        PortSpec { kind: PortKind::Vde(vde), options: PortOptions::default() }
    }

    /// The TAPs that it joins.
    pub(super) fn taps(&self) -> &[PortSpec] {
        &self.taps
    }

    /// How it forwards.
    pub(super) fn bridge(&self) -> BridgeConfig {
        let wanted = self.hashsize.and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
        BridgeConfig {
            mode: if self.hub { Mode::Hub } else { Mode::Switch },
            ageing: AGEING,
            fdb_max: STATIONS.max(wanted),
        }
    }
}

/// Permissions of a folder whose sockets have the permissions `mode`: who may use these may enter it, and
/// what clients make in it is of its group.
fn folder_mode(mode: u32) -> u32 {
    let mode = mode & 0o666;
    0o2000 | mode | (mode & 0o444) >> 2 | (mode & 0o222) >> 1
}

fn parse_socket_mode(text: &str) -> Result<u32, String> {
    parse_mode(text, 0o777)
}

fn parse_folder_mode(text: &str) -> Result<u32, String> {
    parse_mode(text, 0o7777)
}

fn parse_mode(text: &str, max: u32) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= max);
    mode.ok_or_else(|| format!("write octal permissions up to {max:o}, as in 0660"))
}

fn parse_tap(name: &str) -> Result<PortSpec, String> {
    if name.is_empty() {
        return Err("write the name of an interface".to_owned());
    }
    format!("tap:{},up=off", name.replace(',', ",,")).parse().map_err(|error| format!("{error}"))
}

fn parse_own_mac(text: &str) -> Result<Mac, String> {
    let mac = parse_mac(text).filter(|mac| mac.is_station());
    mac.ok_or_else(|| "write the address of a station, as in 52:54:00:12:34:56".to_owned())
}

/// The options of a command.
struct Options(Vec<Known>);

/// An option.
struct Known {
    /// Its names, the first one before its aliases.
    names: Vec<String>,
    short: Option<char>,
    takes_value: bool,
}

/// What a word means that may be a long option cut short.
enum Meant<'a> {
    One(&'a Known),
    Several,
    None,
}

impl Options {
    fn of(mut command: Command) -> Self {
        command.build();
        let options = command.get_arguments().filter_map(|arg| {
            let mut names = vec![arg.get_long()?.to_owned()];
            names.extend(arg.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned));
            Some(Known { names, short: arg.get_short(), takes_value: arg.get_action().takes_values() })
        });
        Self(options.collect())
    }

    /// The same command line with whole names, two dashes, and a `=` in front of each value. What is no option is
    /// left as it is, for clap to complain of.
    fn spell_out(&self, words: Vec<OsString>) -> Vec<OsString> {
        let mut words = words.into_iter();
        let mut plain = Vec::new();
        while let Some(word) = words.next() {
            match word.as_bytes() {
                b"--" => {
                    plain.push(word);
                    break;
                }
                [b'-', b'-', name @ ..] => {
                    let name = name.to_owned();
                    self.spell_long(word, &name, &mut words, &mut plain);
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    let letters = letters.to_owned();
                    let first = char::from(letters[0]);
                    let is_letter = self.short(first).is_some();
                    let meant =
                        if letters.len() == 1 && is_letter { Meant::None } else { self.long(&letters) };
                    match meant {
                        Meant::None if is_letter => self.spell_short(&letters, &mut words, &mut plain),
                        Meant::None => plain.push(word),
                        Meant::One(_) | Meant::Several => {
                            self.spell_long(word, &letters, &mut words, &mut plain);
                        }
                    }
                }
                _ => plain.push(word),
            }
        }
        plain.extend(words);
        plain
    }

    /// A long option, perhaps with its value behind a `=`.
    fn spell_long(
        &self,
        word: OsString,
        text: &[u8],
        words: &mut impl Iterator<Item = OsString>,
        plain: &mut Vec<OsString>,
    ) {
        let value = text.iter().position(|&octet| octet == b'=').map(|at| &text[at + 1..]);
        match self.long(text) {
            Meant::One(option) if option.takes_value => {
                let value = value.map(|value| OsStr::from_bytes(value).to_owned()).or_else(|| words.next());
                plain.push(with_value(&option.names[0], value));
            }
            Meant::One(option) if value.is_none() => plain.push(with_value(&option.names[0], None)),
            Meant::One(_) | Meant::None => plain.push(word),
            // Behind one dash, clap would read letters.
            Meant::Several => plain.push(joined("--", text)),
        }
    }

    /// Letters behind one dash; one that takes a value has the rest of them, or else the next word.
    fn spell_short(
        &self,
        letters: &[u8],
        words: &mut impl Iterator<Item = OsString>,
        plain: &mut Vec<OsString>,
    ) {
        for (at, &letter) in letters.iter().enumerate() {
            match self.short(char::from(letter)) {
                Some(option) if option.takes_value => {
                    let rest = &letters[at + 1..];
                    let value = (!rest.is_empty()).then(|| OsStr::from_bytes(rest).to_owned());
                    plain.push(with_value(&option.names[0], value.or_else(|| words.next())));
                    return;
                }
                Some(option) => plain.push(with_value(&option.names[0], None)),
                None => plain.push(joined("-", &[letter])),
            }
        }
    }

    fn short(&self, letter: char) -> Option<&Known> {
        self.0.iter().find(|option| option.short == Some(letter))
    }

    /// The long option that `text` up to a `=` names, or begins to name.
    fn long(&self, text: &[u8]) -> Meant<'_> {
        let name = text.split(|&octet| octet == b'=').next().unwrap_or_default();
        let is_name = |option: &&Known| option.names.iter().any(|own| own.as_bytes() == name);
        if let Some(option) = self.0.iter().find(is_name) {
            return Meant::One(option);
        }
        let begins = |option: &&Known| option.names.iter().any(|own| own.as_bytes().starts_with(name));
        let mut meant = self.0.iter().filter(begins);
        match (meant.next(), meant.next()) {
            (Some(option), None) => Meant::One(option),
            (Some(_), Some(_)) => Meant::Several,
            (None, _) => Meant::None,
        }
    }
}

fn with_value(name: &str, value: Option<OsString>) -> OsString {
    let mut word = OsString::from(format!("--{name}"));
    if let Some(value) = value {
        word.push("=");
        word.push(value);
    }
    word
}

fn joined(dashes: &str, rest: &[u8]) -> OsString {
    let mut word = OsString::from(dashes);
    word.push(OsStr::from_bytes(rest));
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(words: &str) -> String {
        let words = words.split(' ').map(OsString::from).collect();
        let plain = Options::of(Args::command()).spell_out(words);
        plain.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    fn parsed(words: &str) -> Result<Args, String> {
        let words = words.split(' ').filter(|word| !word.is_empty()).map(OsString::from);
        Args::parse_words(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    /// As the original reads them.
    #[test]
    fn long_options_have_one_dash_or_two_and_may_be_cut_short() {
        for (written, meant) in [
            ("-s /a", "--sock=/a"),
            ("-s/a", "--sock=/a"),
            ("-sock /a", "--sock=/a"),
            ("-sock=/a", "--sock=/a"),
            ("--sock=/a", "--sock=/a"),
            ("--so /a", "--sock=/a"),
            ("-u /a", "--sock=/a"),
            ("-unix /a", "--sock=/a"),
            ("-vdesock /a", "--sock=/a"),
            ("-vd /a", "--sock=/a"),
            ("-d", "--daemon"),
            ("-da", "--daemon"),
            ("-daemon", "--daemon"),
            ("-dirm 755", "--dirmode=755"),
            ("-mod 600", "--mode=600"),
            ("-mode=600", "--mode=600"),
            ("-m600", "--mode=600"),
            ("-m 600", "--mode=600"),
            ("-mac 2:0:0:0:0:1", "--macaddr=2:0:0:0:0:1"),
            ("-xd", "--hub --daemon"),
            ("-dx", "--daemon --hub"),
            ("-xs /a", "--hub --sock=/a"),
            ("-hu", "--hub"),
            ("-hub -x", "--hub --hub"),
            ("-hubx", "--help -u -b --hub"),
            ("-h", "--help"),
            ("-ha 128", "--hashsize=128"),
            ("-t tap0 -tap tap1 -ta tap2", "--tap=tap0 --tap=tap1 --tap=tap2"),
            ("-n 5 -nu 6 -n7", "--numports=5 --numports=6 --numports=7"),
            ("-nostdin -no", "--nostdin --nostdin"),
            ("-M /m -mgmt /n", "--mgmt=/m --mgmt=/n"),
            ("-mgmtm 660", "--mgmtmode=660"),
            ("-mg /m", "--mg /m"),
            ("-p /p -pid /q -pr 1", "--pidfile=/p --pidfile=/q --priority=1"),
            ("-f rc -rc rc -fs -F", "--rcfile=rc --rcfile=rc --fstp --fstp"),
            ("-D 3 -de 4", "--debugclients=3 --debugclients=4"),
            ("-v -ve", "--version --version"),
            ("-s -mod", "--sock=-mod"),
            ("-s", "--sock"),
            ("-hub=1", "-hub=1"),
            ("-Z -bogus --bogus", "-Z -bogus --bogus"),
            ("-xZ", "--hub -Z"),
            ("word - -x -- -x -sock", "word - --hub -- -x -sock"),
        ] {
            assert_eq!(spelled(written), meant, "{written}");
        }
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for words in
            ["-Z", "--bogus", "word", "-mg /m", "-hub=1", "-s", "-m 888", "-m 1000", "-dirmode 10000"]
        {
            assert!(parsed(words).is_err(), "{words}");
        }
        for words in
            ["-n 0", "-n x", "-n 1025", "-macaddr zz", "-macaddr 01:0:0:0:0:1", "-tap /bad", "-hashsize 0"]
        {
            assert!(parsed(words).is_err(), "{words}");
        }
        for words in ["-F", "-fstp", "--priority 1"] {
            let error = parsed(words).unwrap_err();
            assert!(error.contains("there is no spanning tree"), "{error}");
        }
        for words in
            ["-m 777", "-dirmode 7777", "-n 1", "-n 1024", "-tap vm%d", "-D 3", "-macaddr 02:0:0:0:0:1"]
        {
            parsed(words).unwrap();
        }
    }

    #[test]
    fn the_last_one_counts_but_taps_add_up() {
        let args = parsed("-s /a -x -s /b -x -t a -t b -n 3 -n 4").unwrap();
        assert_eq!(args.folder(), PathBuf::from("/b"));
        assert_eq!((args.taps().len(), args.numports, args.bridge().mode), (2, 4, Mode::Hub));
        let args = parsed("").unwrap();
        assert_eq!((args.taps().len(), args.numports, args.bridge().mode), (0, 32, Mode::Switch));
        assert_eq!((args.mgmtmode, args.bridge().fdb_max), (0o600, 8192));
        assert_eq!(parsed("-hashsize 128").unwrap().bridge().fdb_max, 8192);
        assert_eq!(parsed("-hashsize 8193").unwrap().bridge().fdb_max, 8193);
    }

    /// As the original makes them.
    #[test]
    fn the_modes_of_folder_and_sockets_follow_each_other() {
        for (words, folder, sockets) in [
            ("", None, 0o600),
            ("-m 666", Some(0o2777), 0o666),
            ("-m 640", Some(0o2750), 0o640),
            ("-m 620", Some(0o2730), 0o620),
            ("-mode 640 -dirmode 755", Some(0o755), 0o640),
            ("-dirmode 755", Some(0o755), 0o644),
            ("-dirmode 2770", Some(0o2770), 0o660),
        ] {
            let PortKind::Vde(vde) = parsed(words).unwrap().switch().kind else { panic!("no VDE") };
            assert_eq!((vde.mode, vde.socket_mode()), (folder, sockets), "{words}");
        }
    }
}
