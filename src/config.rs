//! What the user asked for: text in, values out, valid once built. No I/O.
//!
//! A port is written `KIND:ADDRESS[,key=value...]`, as QEMU users write things; a comma inside a
//! value is doubled.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hub_protocol::{ethernet, stream};

use crate::batch::ARENA;

/// Queued octets above which a port is congested.
pub const HIGH_MARK: usize = 128 * 1024;

/// The smallest `queue=`: whoever waits for a port under the mark has one batch on its way.
pub const QUEUE_MIN: usize = HIGH_MARK + ARENA;
const QUEUE_MAX: usize = 64 << 20;
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Octets of a socket path or an abstract name, which has a zero octet in front; a path one behind.
pub const UNIX_NAME_MAX: usize = 107;
const NAME_MAX: usize = 32;

/// A port as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Where its peers come from.
    pub kind: PortKind,
    /// What holds for each port made by it.
    pub options: PortOptions,
}

/// The kinds of port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// `unix:PATH`, `unix:@NAME`: serve a unix socket; each connection is a port.
    Unix {
        /// Its name.
        name: UnixName,
        /// Permissions of the socket file.
        mode: u32,
        /// Admit other users to an abstract name?
        any_user: bool,
    },
    /// `tcp:[HOST:]PORT`: serve TCP; each connection is a port.
    Tcp(HostPort),
    /// `connect:unix:PATH`, `connect:tcp:HOST:PORT`: dial a QEMU, again when it goes.
    Connect(Remote),
    /// `fd:N`: an inherited socket, connected or listening.
    Fd(i32),
}

/// What to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A unix socket.
    Unix(UnixName),
    /// TCP.
    Tcp(HostPort),
}

/// The name of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixName {
    /// A file.
    Path(PathBuf),
    /// A name in Linux's abstract namespace, written with an `@` in front.
    Abstract(String),
}

/// A TCP address before its name is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A host name or an address, without brackets.
    pub host: String,
    /// The port; 0 lets the system choose one to listen on.
    pub port: u16,
}

/// What every kind of port takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOptions {
    /// Its name; where there may be several, they are numbered.
    pub name: Option<String>,
    /// Octets that may wait for its peer.
    pub queue: usize,
    /// How long others may wait for it, at a stretch and per second.
    pub pause: Duration,
    /// The longest frame, in octets, that may pass it either way.
    pub max_frame: usize,
    /// Frames that leave by it are padded with zeros to this length, in octets.
    pub pad: usize,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            name: None,
            queue: 1 << 20,
            pause: Duration::from_millis(50),
            max_frame: stream::MAX_FRAME,
            pad: 0,
        }
    }
}

/// Why a specification of a port is refused; says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

fn refuse<T>(reason: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError(reason.into()))
}

const KINDS: &str = "unix:PATH, tcp:[HOST:]PORT, connect:unix:PATH, connect:tcp:HOST:PORT or fd:N";

impl FromStr for PortSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut parts = split_at_single_commas(text).into_iter();
        let place = parts.next().unwrap_or_default();
        let mut spec = Self { kind: parse_kind(&place)?, options: PortOptions::default() };
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return refuse(format!("'{part}' is no key=value; a comma inside a value is doubled (,,)"));
            };
            spec.set(key, value)?;
        }
        Ok(spec)
    }
}

impl PortSpec {
    fn set(&mut self, key: &str, value: &str) -> Result<(), SpecError> {
        let options = &mut self.options;
        match (key, &mut self.kind) {
            ("name", _) => options.name = Some(parse_name(value)?),
            ("queue", _) => options.queue = parse_size(value, QUEUE_MIN, QUEUE_MAX, "queue")?,
            ("pause", _) => options.pause = parse_pause(value)?,
            ("max-frame", _) => {
                options.max_frame = parse_size(value, ethernet::HEADER_LEN, stream::MAX_FRAME, "max-frame")?;
            }
            ("pad", _) if value == "60" => options.pad = ethernet::MIN_LEN,
            ("pad", _) => return refuse(format!("pad={value}: write pad=60, or leave it out")),
            ("mode", PortKind::Unix { name: UnixName::Path(_), mode, .. }) => *mode = parse_mode(value)?,
            ("any-user", PortKind::Unix { name: UnixName::Abstract(_), any_user, .. }) => {
                *any_user = match value {
                    "on" => true,
                    "off" => false,
                    _ => return refuse(format!("any-user={value}: write on or off")),
                }
            }
            ("any-user", PortKind::Unix { .. }) => {
                return refuse("any-user= is for abstract names (unix:@NAME); mode=0666 opens a socket file");
            }
            _ => return refuse(format!("this kind of port takes no '{key}='")),
        }
        Ok(())
    }
}

/// Splits at single commas; a doubled one stands for itself.
fn split_at_single_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(char);
        }
    }
    parts
}

fn parse_kind(place: &str) -> Result<PortKind, SpecError> {
    let Some((kind, address)) = place.split_once(':') else {
        return refuse(format!("'{place}' is no port; write {KINDS}"));
    };
    Ok(match kind {
        "unix" => PortKind::Unix { name: parse_unix_name(address)?, mode: 0o600, any_user: false },
        "tcp" => PortKind::Tcp(parse_host_port(address, Some("127.0.0.1"))?),
        "connect" => PortKind::Connect(match address.split_once(':') {
            Some(("unix", name)) => Remote::Unix(parse_unix_name(name)?),
            Some(("tcp", host_port)) => Remote::Tcp(parse_host_port(host_port, None)?),
            _ => {
                return refuse(format!("'{place}': write connect:unix:PATH or connect:tcp:HOST:PORT"));
            }
        }),
        "fd" => match address.parse() {
            Ok(fd @ (0 | 3..)) => PortKind::Fd(fd),
            _ => {
                return refuse(format!(
                    "'{place}': write fd:N with the number of an inherited socket (0, 3, 4, ...)"
                ));
            }
        },
        _ => return refuse(format!("'{kind}:' is no kind of port; write {KINDS}")),
    })
}

fn parse_unix_name(name: &str) -> Result<UnixName, SpecError> {
    let bare = name.strip_prefix('@').unwrap_or(name);
    if bare.is_empty() || bare.contains('\0') {
        return refuse("a unix socket needs a name: unix:PATH, or unix:@NAME for an abstract one");
    }
    if bare.len() > UNIX_NAME_MAX {
        return refuse(format!(
            "the name of a unix socket has at most {UNIX_NAME_MAX} octets, this one has {}; choose a shorter path",
            bare.len()
        ));
    }
    Ok(match name.strip_prefix('@') {
        Some(abstract_name) => UnixName::Abstract(abstract_name.to_owned()),
        None => UnixName::Path(PathBuf::from(name)),
    })
}

/// `default_host` makes `PORT` alone enough, and then port 0 is allowed: the system chooses.
fn parse_host_port(text: &str, default_host: Option<&str>) -> Result<HostPort, SpecError> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => (default_host.unwrap_or_default(), text),
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address,
        None if host.contains(':') => {
            return refuse(format!("'{text}': write an IPv6 address in brackets, as in [::1]:5555"));
        }
        None => host,
    };
    if host.is_empty() {
        return refuse(format!("'{text}' names no host; write HOST:PORT (everybody is 0.0.0.0:PORT)"));
    }
    match port.parse() {
        Ok(0) if default_host.is_none() => refuse("port 0 can't be dialled; write 1 to 65535"),
        Ok(port) => Ok(HostPort { host: host.to_owned(), port }),
        Err(_) => refuse(format!("'{port}' is no TCP port; write 0 to 65535")),
    }
}

/// Checks the name of a port or an instance.
pub fn parse_name(name: &str) -> Result<String, SpecError> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('.') || !name.chars().all(is_plain) {
        return refuse(format!(
            "'{name}' is no name; write 1 to {NAME_MAX} letters, digits, '-', '_' and '.', the first no '.'"
        ));
    }
    Ok(name.to_owned())
}

fn parse_mode(text: &str) -> Result<u32, SpecError> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => refuse(format!("mode={text}: write octal permissions, as in mode=0660")),
    }
}

fn parse_size(text: &str, min: usize, max: usize, key: &str) -> Result<usize, SpecError> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    match digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(size) if (min..=max).contains(&size) => Ok(size),
        _ => refuse(format!("{key}={text}: write {min} to {max} octets (K and M mean KiB and MiB)")),
    }
}

fn parse_pause(text: &str) -> Result<Duration, SpecError> {
    let pause = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => number.parse().ok().map(Duration::from_millis),
        (None, Some(number)) => number.parse().ok().map(Duration::from_secs),
        (None, None) => None,
    };
    match pause {
        Some(pause) if pause <= PAUSE_MAX => Ok(pause),
        _ => refuse(format!("pause={text}: write 0ms to 1000ms")),
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { name, .. } => write!(f, "unix:{name}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Connect(Remote::Unix(name)) => write!(f, "connect:unix:{name}"),
            Self::Connect(Remote::Tcp(address)) => write!(f, "connect:tcp:{address}"),
            Self::Fd(fd) => write!(f, "fd:{fd}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> PortSpec {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_kind_reads_back_as_written() {
        for (text, shown) in [
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:@lab", "unix:@lab"),
            ("unix:/a,,b,mode=0660", "unix:/a,b"),
            ("tcp:5555", "tcp:127.0.0.1:5555"),
            ("tcp:0.0.0.0:5555", "tcp:0.0.0.0:5555"),
            ("tcp:[::1]:0", "tcp:[::1]:0"),
            ("tcp:localhost:1", "tcp:localhost:1"),
            ("connect:unix:/run/vm", "connect:unix:/run/vm"),
            ("connect:tcp:[::1]:5555", "connect:tcp:[::1]:5555"),
            ("fd:3", "fd:3"),
        ] {
            assert_eq!(parse(text).kind.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn options_take_both_ends_of_their_range_and_nothing_beyond() {
        let spec = parse("tcp:1,name=web,queue=393216,pause=1s,max-frame=14,pad=60");
        assert_eq!(
            spec.options,
            PortOptions {
                name: Some("web".into()),
                queue: QUEUE_MIN,
                pause: PAUSE_MAX,
                max_frame: 14,
                pad: 60
            }
        );
        assert_eq!(parse("tcp:1,queue=64M,pause=0ms,max-frame=69632").options.queue, QUEUE_MAX);
        assert!(matches!(parse("unix:/a,mode=0777").kind, PortKind::Unix { mode: 0o777, .. }));
        assert!(matches!(parse("unix:@a,any-user=on").kind, PortKind::Unix { any_user: true, .. }));
        for (text, hint) in [
            ("tcp:1,queue=393215", "393216 to 67108864"),
            ("tcp:1,queue=65537K", "393216 to"),
            ("tcp:1,queue=99999999999999999999M", "queue="),
            ("tcp:1,pause=1001ms", "0ms to 1000ms"),
            ("tcp:1,pause=50", "0ms to 1000ms"),
            ("tcp:1,max-frame=13", "14 to 69632"),
            ("tcp:1,max-frame=69633", "14 to 69632"),
            ("tcp:1,pad=61", "pad=60"),
            ("unix:/a,mode=1000", "octal"),
            ("unix:/a,mode=rw", "octal"),
            ("unix:@a,mode=0600", "takes no 'mode='"),
            ("unix:@a,any-user=yes", "on or off"),
            ("unix:/a,any-user=on", "abstract"),
            ("tcp:1,mode=0600", "takes no 'mode='"),
            ("tcp:1,colour=red", "takes no 'colour='"),
            ("tcp:1,name=", "is no name"),
            ("tcp:1,name=a/b", "is no name"),
            ("tcp:1,name=.a", "is no name"),
            ("tcp:1,x", "key=value"),
        ] {
            let error = text.parse::<PortSpec>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
        assert!(parse_name(&"n".repeat(32)).is_ok() && parse_name(&"n".repeat(33)).is_err());
    }

    #[test]
    fn bad_places_say_what_would_be_right() {
        for (text, hint) in [
            ("", "write unix:PATH"),
            ("5555", "write unix:PATH"),
            ("udp6:1", "'udp6:' is no kind of port"),
            ("unix:", "needs a name"),
            ("unix:@", "needs a name"),
            ("tcp:65536", "0 to 65535"),
            ("tcp:::1:5555", "brackets"),
            ("tcp::5555", "0.0.0.0:PORT"),
            ("connect:tcp:5555", "HOST:PORT"),
            ("connect:tcp:h:0", "port 0"),
            ("connect:/path", "connect:unix:PATH"),
            ("fd:1", "inherited socket"),
            ("fd:x", "inherited socket"),
        ] {
            let error = text.parse::<PortSpec>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
        let path = |len: usize| format!("unix:/{}", "p".repeat(len - 1));
        assert!(path(107).parse::<PortSpec>().is_ok());
        let error = path(108).parse::<PortSpec>().unwrap_err().to_string();
        assert!(error.contains("at most 107 octets, this one has 108"), "{error}");
    }
}
