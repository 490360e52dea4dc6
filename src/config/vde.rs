//! VDE switches: one to be, and one to join.

use std::fmt;
use std::path::PathBuf;

use super::spec::{SpecError, refuse};
use super::text::{parse_mode, parse_name, parse_number};
use crate::bridge::MAX_PORTS;

/// The socket that clients join at when they name no port group.
const CONTROL: &str = "ctl";

/// The most octets of a folder's path: sockets in it have names of up to 16.
const FOLDER_MAX: usize = 90;

/// The highest number of a port that a request can carry.
const PORT_MAX: u32 = 0xff_ffff;

/// `vde:DIR`: be a VDE switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vde {
    /// Its control folder.
    pub folder: PathBuf,
    /// The port group that is served instead of the switch itself: its clients name it.
    pub port_group: Option<String>,
    /// Permissions of the folder; without them, one that is there keeps its own, and a new one is its
    /// owner's, or its group's as well where there is one.
    pub mode: Option<u32>,
    /// Permissions of the socket that clients join at; without them, those that were said for the folder.
    pub socket_mode: Option<u32>,
    /// The group of users that folder and sockets belong to.
    pub group: Option<String>,
    /// The highest number of a port.
    pub ports: u16,
}

/// `connect:vde:DIR`: a VDE switch to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdePlace {
    /// Its control folder.
    pub folder: PathBuf,
    /// The port group to join.
    pub port_group: Option<String>,
    /// The number of the port to join; without one, any.
    pub port: Option<u32>,
}

impl Vde {
    /// A switch in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        let ports = u16::try_from(MAX_PORTS).unwrap_or(u16::MAX);
        Self { folder, port_group: None, mode: None, socket_mode: None, group: None, ports }
    }

    pub(super) fn parse(folder: &str) -> Result<Self, SpecError> {
        parse_folder(folder).map(Self::new)
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, SpecError> {
        match key {
            // Who may read a folder is to enter it.
            "mode" => self.mode = Some(parse_mode(value).map(|mode| 0o700 | mode | (mode & 0o444) >> 2)?),
            "group" if value.is_empty() => return refuse("group= is empty; write a group of users"),
            "group" => self.group = Some(value.to_owned()),
            "port-group" => self.port_group = Some(parse_port_group(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Permissions of a folder that is made.
    pub fn folder_mode(&self) -> u32 {
        self.mode.unwrap_or(if self.group.is_some() { 0o770 } else { 0o700 })
    }

    /// Permissions of the sockets.
    pub fn socket_mode(&self) -> u32 {
        self.socket_mode.unwrap_or(self.folder_mode() & 0o666)
    }

    /// The name of the socket that clients join at.
    pub fn entry(&self) -> &str {
        self.port_group.as_deref().unwrap_or(CONTROL)
    }
}

impl VdePlace {
    pub(super) fn parse(folder: &str) -> Result<Self, SpecError> {
        Ok(Self { folder: parse_folder(folder)?, port_group: None, port: None })
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, SpecError> {
        match key {
            "port" => self.port = Some(parse_number(value, 0, PORT_MAX, key)?),
            "port-group" => self.port_group = Some(parse_port_group(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Sees that what was said fits together.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        if self.port.is_some() && self.port_group.is_some() {
            return refuse("a client joins one port, or one port group; leave out port= or port-group=");
        }
        Ok(())
    }

    /// The name of the socket to join at.
    pub fn entry(&self) -> &str {
        self.port_group.as_deref().unwrap_or(CONTROL)
    }
}

impl fmt::Display for VdePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.folder.display())?;
        match (self.port, &self.port_group) {
            (Some(port), _) => write!(f, ",port={port}"),
            (None, Some(group)) => write!(f, ",port-group={group}"),
            (None, None) => Ok(()),
        }
    }
}

fn parse_folder(text: &str) -> Result<PathBuf, SpecError> {
    if text.is_empty() || text.contains('\0') {
        return refuse("a VDE switch is known by its folder; write vde:DIR");
    }
    if text.ends_with(']') && text.contains('[') {
        return refuse(format!(
            "'{text}': clients of a VDE switch choose their port, as in vde_plug 'DIR[7]'; connect:vde:DIR has port=N and port-group=NAME"
        ));
    }
    if text.len() > FOLDER_MAX {
        return refuse(format!(
            "the folder of a VDE switch has at most {FOLDER_MAX} octets, this one has {}; choose a shorter path",
            text.len()
        ));
    }
    Ok(PathBuf::from(text))
}

/// Other names in the folder begin with a digit or a dot; clients take a number for that of a port.
fn parse_port_group(name: &str) -> Result<String, SpecError> {
    let is_free =
        name != CONTROL && !name.starts_with(|char: char| char.is_ascii_digit()) && name.len() <= 16;
    match parse_name(name) {
        Ok(name) if is_free => Ok(name),
        _ => refuse(format!(
            "port-group={name}: choose another name, of at most 16 letters, digits, '-', '_' and '.'; the first is a letter, and it is not '{CONTROL}'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PortKind, PortSpec, Remote};

    fn kind(text: &str) -> PortKind {
        text.parse::<PortSpec>().unwrap_or_else(|error| panic!("{text}: {error}")).kind
    }

    #[test]
    fn a_switch_takes_what_it_is_told() {
        let PortKind::Vde(vde) = kind("vde:/run/a,,b") else { panic!("not VDE") };
        assert_eq!(vde, Vde::new("/run/a,b".into()));
        assert_eq!((vde.folder_mode(), vde.socket_mode(), vde.entry()), (0o700, 0o600, "ctl"));
        let PortKind::Vde(vde) = kind("vde:d,mode=0775,group=kvm,port-group=lan1") else { panic!("not VDE") };
        assert_eq!((vde.folder_mode(), vde.socket_mode(), vde.entry()), (0o775, 0o664, "lan1"));
        assert_eq!(vde.group.as_deref(), Some("kvm"));
        for (mode, folder, socket) in [("0660", 0o770, 0o660), ("0", 0o700, 0o600), ("0755", 0o755, 0o644)] {
            let PortKind::Vde(vde) = kind(&format!("vde:d,mode={mode}")) else { panic!("not VDE") };
            assert_eq!((vde.folder_mode(), vde.socket_mode()), (folder, socket));
        }
        let PortKind::Vde(vde) = kind("vde:d,group=kvm") else { panic!("not VDE") };
        assert_eq!((vde.folder_mode(), vde.socket_mode()), (0o770, 0o660));
        for (text, shown) in [
            ("vde:/a,mode=0770", "vde:/a"),
            ("vde:/a,port-group=lan1", "vde:/a,port-group=lan1"),
            ("connect:vde:/a,port=7", "connect:vde:/a,port=7"),
            ("connect:vde:/a,port-group=lan1", "connect:vde:/a,port-group=lan1"),
        ] {
            assert_eq!(kind(text).to_string(), shown);
        }
    }

    #[test]
    fn a_switch_is_joined_at_a_port_or_a_group() {
        for (text, port, entry) in [
            ("connect:vde:/a", None, "ctl"),
            ("connect:vde:/a,port=0", Some(0), "ctl"),
            ("connect:vde:/a,port=16777215", Some(PORT_MAX), "ctl"),
            ("connect:vde:/a,port-group=lan1", None, "lan1"),
        ] {
            let PortKind::Connect(Remote::Vde(place)) = kind(text) else { panic!("not VDE") };
            assert_eq!((place.port, place.entry()), (port, entry), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_says_what_would_be_right() {
        let long = |octets: usize| format!("vde:/{}", "p".repeat(octets - 1));
        assert!(long(90).parse::<PortSpec>().is_ok());
        let name = |octets: usize| format!("vde:/a,port-group={}", "g".repeat(octets));
        assert!(name(16).parse::<PortSpec>().is_ok());
        for (text, hint) in [
            ("vde:", "write vde:DIR"),
            ("vde:/a[7]", "choose their port"),
            ("vde:/a,mode=1000", "octal"),
            ("vde:/a,group=", "group of users"),
            ("vde:/a,port-group=ctl", "choose another name"),
            ("vde:/a,port-group=7", "choose another name"),
            ("vde:/a,port-group=a/b", "choose another name"),
            ("vde:/a,port=7", "takes no 'port='"),
            ("connect:vde:/a,port=16777216", "0 to 16777215"),
            ("connect:vde:/a,port=1,port-group=b", "leave out"),
            ("connect:vde:/a,mode=0700", "takes no 'mode='"),
            (&long(91), "at most 90 octets, this one has 91"),
            (&name(17), "at most 16 letters"),
        ] {
            let error = text.parse::<PortSpec>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
