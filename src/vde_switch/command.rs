//! The commands of the console: a line in, a [`Command`] out.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hub_protocol::mac::Mac;
use nix::errno::Errno;

use crate::bridge::Mode;

/// The most stations that there can be room for.
const STATIONS_MAX: usize = 65_536;

/// The longest time that a silent station can be remembered.
const AGEING_MAX: Duration = Duration::from_secs(1_000_000);

/// VIDs are of 12 bits.
const VID_MAX: u16 = 4095;

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Do what is in this file.
    Load(PathBuf),
    /// End this session.
    Logout,
    /// End the switch.
    Shutdown,
    /// Tell or change something of the switch.
    Switch(SwitchCommand),
}

/// What to tell of the switch, or to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SwitchCommand {
    /// What is there that begins so?
    Help(String),
    /// What switch is it?
    ShowInfo,
    /// Where do clients come to?
    FolderInfo,
    /// How many ports may there be?
    PortInfo,
    /// So many.
    SetNumPorts(u16),
    /// Be a hub, or a switch.
    SetMode(Mode),
    /// Make a port that stays.
    Create(u16),
    /// Make one with a free number.
    CreateAuto,
    /// Take one away.
    Remove(u16),
    /// May who asks for no number get it?
    SetAllocatable(u16, bool),
    /// Who may join it; without a name, everybody.
    SetUser(u16, Option<String>),
    /// The users of which group may.
    SetGroup(u16, Option<String>),
    /// Close an endpoint of a port.
    CloseEndpoint(u16, usize),
    /// Count from 0, one port or all.
    ResetCounters(Option<u16>),
    /// What ports are there?
    PrintPorts(Selection),
    /// What VLANs?
    PrintVlans(Selection),
    /// How are stations remembered?
    HashInfo,
    /// So many at the least.
    SetHashSize(usize),
    /// So long.
    SetAgeing(Duration),
    /// Which are they?
    PrintStations,
    /// Where is this one, in this VLAN or untagged?
    Find(Mac, u16),
    /// What events are there?
    ListEvents,
    /// Tell those whose name begins so.
    AddEvents(String),
    /// Tell them no more.
    DropEvents(String),
}

/// Which ones to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// Only this one.
    pub(super) number: Option<u16>,
    /// Also ports that nobody is plugged into?
    pub(super) is_all: bool,
}

impl Command {
    /// What a line asks for.
    ///
    /// # Errors
    ///
    /// `ENOSYS` where there is no such command, `EINVAL` for wrong arguments.
    pub(super) fn parse(line: &str) -> Result<Self, Errno> {
        let line = line.trim();
        let (path, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (path, rest.trim()) {
            // A path may have blanks in it.
            ("load", "") => Err(Errno::EINVAL),
            ("load", path) => Ok(Self::Load(PathBuf::from(path))),
            ("logout", "") => Ok(Self::Logout),
            ("shutdown", "") => Ok(Self::Shutdown),
            ("logout" | "shutdown", _) => Err(Errno::EINVAL),
            (path, rest) => SwitchCommand::parse(path, rest).map(Self::Switch),
        }
    }
}

/// What the original has and qhub has not, although a switch without it is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    Vlans,
    SpanningTree,
    Plugins,
}

impl Lack {
    /// What a line asks for in vain.
    pub(super) fn of(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["vlan/create" | "vlan/remove" | "vlan/addport" | "vlan/delport" | "port/setvlan", ..] => {
                Some(Self::Vlans)
            }
            // It is off.
            ["fstp/setfstp", "0"] => None,
            ["plugin/add", ..] => Some(Self::Plugins),
            [path, ..] if path.starts_with("fstp/") => Some(Self::SpanningTree),
            _ => None,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vlans => "there are no VLANs in qhub yet, all ports are one segment",
            Self::SpanningTree => "there is no spanning tree in qhub",
            Self::Plugins => "there are no plugins in qhub",
        })
    }
}

impl SwitchCommand {
    fn parse(path: &str, rest: &str) -> Result<Self, Errno> {
        let rest: Vec<&str> = rest.split_whitespace().collect();
        let (first, second) = (rest.first().copied(), rest.get(1).copied());
        let select = |is_all| Ok(Selection { number: first.map(number).transpose()?, is_all });
        let (command, arguments) = match path {
            "help" => return Ok(Self::Help(rest.join(" "))),
            "showinfo" => (Ok(Self::ShowInfo), 0),
            "ds/showinfo" => (Ok(Self::FolderInfo), 0),
            "port/showinfo" => (Ok(Self::PortInfo), 0),
            "port/setnumports" => (wanted(first, number).map(Self::SetNumPorts), 1),
            "port/sethub" => (wanted(first, switch).map(|on| Self::SetMode(mode(on))), 1),
            "port/create" => (wanted(first, number).map(Self::Create), 1),
            "port/createauto" => (Ok(Self::CreateAuto), 0),
            "port/remove" => (wanted(first, number).map(Self::Remove), 1),
            "port/allocatable" => (both(first, number, second, switch, Self::SetAllocatable), 2),
            "port/setuser" => (both(first, number, second, owner, Self::SetUser), 2),
            "port/setgroup" => (both(first, number, second, owner, Self::SetGroup), 2),
            "port/epclose" => (both(first, number, second, number, Self::CloseEndpoint), 2),
            "port/resetcounter" => (first.map(number).transpose().map(Self::ResetCounters), 1),
            "port/print" => (select(false).map(Self::PrintPorts), 1),
            "port/allprint" => (select(true).map(Self::PrintPorts), 1),
            "vlan/print" => (select(false).map(Self::PrintVlans), 1),
            "vlan/allprint" => (select(true).map(Self::PrintVlans), 1),
            "hash/showinfo" => (Ok(Self::HashInfo), 0),
            "hash/setsize" => (wanted(first, hash_size).map(Self::SetHashSize), 1),
            "hash/setexpire" => (wanted(first, ageing).map(Self::SetAgeing), 1),
            "hash/print" => (Ok(Self::PrintStations), 0),
            "hash/find" => (find(first, second), 2),
            "debug/list" => (Ok(Self::ListEvents), 0),
            "debug/add" => (Ok(Self::AddEvents(first.unwrap_or_default().to_owned())), 1),
            "debug/del" => (Ok(Self::DropEvents(first.unwrap_or_default().to_owned())), 1),
            _ => return Err(Errno::ENOSYS),
        };
        if rest.len() > arguments { Err(Errno::EINVAL) } else { command }
    }

    /// Does its answer have data, also when it is an error?
    pub(super) fn has_data(&self) -> bool {
        match self {
            Self::Help(_)
            | Self::ShowInfo
            | Self::FolderInfo
            | Self::PortInfo
            | Self::CreateAuto
            | Self::PrintPorts(_)
            | Self::PrintVlans(_)
            | Self::HashInfo
            | Self::PrintStations
            | Self::Find(..)
            | Self::ListEvents => true,
            Self::SetNumPorts(_)
            | Self::SetMode(_)
            | Self::Create(_)
            | Self::Remove(_)
            | Self::SetAllocatable(..)
            | Self::SetUser(..)
            | Self::SetGroup(..)
            | Self::CloseEndpoint(..)
            | Self::ResetCounters(_)
            | Self::SetHashSize(_)
            | Self::SetAgeing(_)
            | Self::AddEvents(_)
            | Self::DropEvents(_) => false,
        }
    }
}

/// An argument that has to be there.
fn wanted<T>(word: Option<&str>, parse: impl FnOnce(&str) -> Result<T, Errno>) -> Result<T, Errno> {
    word.ok_or(Errno::EINVAL).and_then(parse)
}

fn both<A, B>(
    first: Option<&str>,
    parse_first: impl FnOnce(&str) -> Result<A, Errno>,
    second: Option<&str>,
    parse_second: impl FnOnce(&str) -> Result<B, Errno>,
    command: impl FnOnce(A, B) -> SwitchCommand,
) -> Result<SwitchCommand, Errno> {
    Ok(command(wanted(first, parse_first)?, wanted(second, parse_second)?))
}

/// Decimal digits, as all numbers that the console prints; zeros in front mean nothing.
fn number<N: std::str::FromStr>(word: &str) -> Result<N, Errno> {
    if !word.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(Errno::EINVAL);
    }
    word.parse().map_err(|_| Errno::EINVAL)
}

fn switch(word: &str) -> Result<bool, Errno> {
    match word {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(Errno::EINVAL),
    }
}

fn mode(is_hub: bool) -> Mode {
    if is_hub { Mode::Hub } else { Mode::Switch }
}

fn owner(word: &str) -> Result<Option<String>, Errno> {
    Ok((!matches!(word, "NONE" | "ANY")).then(|| word.to_owned()))
}

fn hash_size(word: &str) -> Result<usize, Errno> {
    number(word).ok().filter(|size| (1..=STATIONS_MAX).contains(size)).ok_or(Errno::EINVAL)
}

fn ageing(word: &str) -> Result<Duration, Errno> {
    let time = Duration::from_secs(number(word)?);
    if time.is_zero() || time > AGEING_MAX { Err(Errno::EINVAL) } else { Ok(time) }
}

fn find(mac: Option<&str>, vid: Option<&str>) -> Result<SwitchCommand, Errno> {
    let mac = mac.and_then(parse_mac).ok_or(Errno::EINVAL)?;
    let vid = vid.map(number).transpose()?.unwrap_or(0);
    if vid > VID_MAX { Err(Errno::EINVAL) } else { Ok(SwitchCommand::Find(mac, vid)) }
}

/// A MAC address with colons; zeros in front may be left out.
pub(super) fn parse_mac(text: &str) -> Option<Mac> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.len() <= 2 && !part.starts_with('+'))?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(number: u16) -> Selection {
        Selection { number: Some(number), is_all: false }
    }

    #[test]
    fn lines_are_commands() {
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        for (line, command) in [
            ("showinfo", SwitchCommand::ShowInfo),
            ("  showinfo\t", SwitchCommand::ShowInfo),
            ("help", SwitchCommand::Help(String::new())),
            ("help port/p", SwitchCommand::Help("port/p".into())),
            ("port/create 010", SwitchCommand::Create(10)),
            ("port/create 0", SwitchCommand::Create(0)),
            ("port/create 65535", SwitchCommand::Create(65_535)),
            ("port/sethub 1", SwitchCommand::SetMode(Mode::Hub)),
            ("port/sethub 0", SwitchCommand::SetMode(Mode::Switch)),
            ("port/allocatable 3 0", SwitchCommand::SetAllocatable(3, false)),
            ("port/setuser 3 ann", SwitchCommand::SetUser(3, Some("ann".into()))),
            ("port/setuser 3 NONE", SwitchCommand::SetUser(3, None)),
            ("port/setgroup 3 ANY", SwitchCommand::SetGroup(3, None)),
            ("port/epclose 3 0009", SwitchCommand::CloseEndpoint(3, 9)),
            ("port/resetcounter", SwitchCommand::ResetCounters(None)),
            ("port/resetcounter 3", SwitchCommand::ResetCounters(Some(3))),
            ("port/print  3", SwitchCommand::PrintPorts(one(3))),
            ("port/allprint", SwitchCommand::PrintPorts(Selection { number: None, is_all: true })),
            ("vlan/print 0000", SwitchCommand::PrintVlans(one(0))),
            ("hash/setsize 65536", SwitchCommand::SetHashSize(65_536)),
            ("hash/setexpire 1", SwitchCommand::SetAgeing(Duration::from_secs(1))),
            ("hash/find 52:54:0:0:0:1", SwitchCommand::Find(mac, 0)),
            ("hash/find 52:54:00:00:00:01 4095", SwitchCommand::Find(mac, 4095)),
            ("debug/add", SwitchCommand::AddEvents(String::new())),
            ("debug/del port/", SwitchCommand::DropEvents("port/".into())),
        ] {
            assert_eq!(Command::parse(line), Ok(Command::Switch(command)), "{line}");
        }
    }

    #[test]
    fn sessions_and_files_have_their_own() {
        assert_eq!(Command::parse(" load  /a b/c "), Ok(Command::Load("/a b/c".into())));
        assert_eq!(Command::parse("logout"), Ok(Command::Logout));
        assert_eq!(Command::parse("shutdown\t"), Ok(Command::Shutdown));
    }

    #[test]
    fn only_whole_names_are_commands() {
        for line in [
            "",
            "bogus",
            "port",
            "port/",
            "port/printX",
            "port/pri",
            "SHOWINFO",
            "showinfo,",
            "vlan/create 5",
            "port/setvlan 3 5",
            "fstp/showinfo",
            "plugin/list",
            "hash/setgcint 5",
            "hash/setminper 0",
        ] {
            assert_eq!(Command::parse(line), Err(Errno::ENOSYS), "{line}");
        }
    }

    #[test]
    fn what_is_lacking_is_told_from_what_is_wrong() {
        for (line, lack) in [
            ("vlan/create 5", Some(Lack::Vlans)),
            ("vlan/remove 5", Some(Lack::Vlans)),
            ("  vlan/addport\t5 1", Some(Lack::Vlans)),
            ("vlan/delport 5 1", Some(Lack::Vlans)),
            ("port/setvlan 1 5", Some(Lack::Vlans)),
            ("fstp/setfstp 1", Some(Lack::SpanningTree)),
            ("fstp/setedge 0 1 1", Some(Lack::SpanningTree)),
            ("plugin/add libvdep.so", Some(Lack::Plugins)),
            ("fstp/setfstp 0", None),
            ("vlan/print", None),
            ("vlan/createX 5", None),
            ("plugin/list", None),
            ("port/create 5", None),
            ("", None),
        ] {
            assert_eq!(Lack::of(line), lack, "{line}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in [
            "showinfo x",
            "port/create",
            "port/create x",
            "port/create 3x",
            "port/create -1",
            "port/create +1",
            "port/create 65536",
            "port/create 0x11",
            "port/create 1 2",
            "port/print x",
            "port/sethub",
            "port/sethub 2",
            "port/allocatable 3",
            "port/allocatable 3 2",
            "port/setuser 3",
            "port/setuser ann",
            "port/epclose 3",
            "port/setnumports -1",
            "hash/setsize 0",
            "hash/setsize 65537",
            "hash/setexpire 0",
            "hash/setexpire 1000001",
            "hash/find",
            "hash/find xx",
            "hash/find 52-54-00-00-00-01",
            "hash/find 52:54:00:00:00",
            "load",
            "load ",
            "logout now",
            "shutdown now",
            "hash/find 52:54:00:00:00:01:02",
            "hash/find 52:54:00:00:00:01 4096",
            "hash/find 52:54:00:00:00:001",
            "hash/find 52:54:00:00:00:+1",
            "vlan/print x",
            "debug/add a b",
        ] {
            assert_eq!(Command::parse(line), Err(Errno::EINVAL), "{line}");
        }
    }
}
