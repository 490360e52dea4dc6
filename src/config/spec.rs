//! Reading a port specification: `KIND:ADDRESS[,key=value...]`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hub_protocol::l2tpv3::L2tpv3;
use hub_protocol::{ethernet, stream};

use super::text::{
    parse_duration, parse_host_port, parse_mode, parse_name, parse_number, parse_size, parse_switch,
    parse_unix_name, split_at_single_commas,
};
use super::{
    Group, HostPort, Interface, PeerLimits, Peers, PortKind, PortOptions, PortSpec, QUEUE_MIN, Remote,
    UnixName,
};
use crate::bridge::MAX_PORTS;

const QUEUE_MAX: usize = 64 << 20;
const PAUSE: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(1));
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// Why a specification of a port is refused; says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

pub(super) fn refuse<T>(reason: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError(reason.into()))
}

const KINDS: &str = "unix:PATH, tcp:[HOST:]PORT, connect:unix:PATH, connect:tcp:HOST:PORT, fd:N, udp:[HOST:]PORT, \
                     dgram:PATH, mcast:GROUP:PORT or l2tpv3:[HOST:]PORT";

impl FromStr for PortSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut parts = split_at_single_commas(text).into_iter();
        let place = parts.next().unwrap_or_default();
        let mut pairs = Vec::new();
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return refuse(format!("'{part}' is no key=value; a comma inside a value is doubled (,,)"));
            };
            pairs.push((key.to_owned(), value.to_owned()));
        }
        // Some kinds are not whole without this one.
        let remote = pairs.iter().rposition(|(key, _)| key == "remote").map(|at| pairs.remove(at).1);
        let mut spec = Self { kind: parse_kind(&place, remote.as_deref())?, options: PortOptions::default() };
        for (key, value) in &pairs {
            spec.set(key, value)?;
        }
        spec.check()?;
        Ok(spec)
    }
}

impl PortSpec {
    fn set(&mut self, key: &str, value: &str) -> Result<(), SpecError> {
        if self.options.set(key, value)? || self.kind.set(key, value)? {
            return Ok(());
        }
        refuse(match (key, &self.kind) {
            ("any-user", PortKind::Unix { .. }) => {
                "any-user= is for abstract names (unix:@NAME); mode=0666 opens a socket file".to_owned()
            }
            ("max-peers" | "idle", PortKind::Udp { .. } | PortKind::Dgram { .. }) => {
                format!("'{key}=' is for a port without remote=, which has one peer")
            }
            ("remote", _) => "'remote=' is given twice".to_owned(),
            _ => format!("this kind of port takes no '{key}='"),
        })
    }

    /// Sees that what was said fits together.
    fn check(&self) -> Result<(), SpecError> {
        if let PortKind::L2tpv3 { framing, .. } = &self.kind
            && let Err(fault) = framing.check()
        {
            return refuse(fault.to_string());
        }
        if let PortKind::Mcast(Group { address, interface: Some(Interface::Address(own)), .. }) = &self.kind
            && own.is_ipv4() != address.is_ipv4()
        {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let group = address.ip();
            return refuse(format!(
                "iface={own} and the group {group} are not of one family; write an {family} address of the interface, or its name"
            ));
        }
        if let PortKind::Udp { local, peers: Peers::One(remote) } | PortKind::L2tpv3 { local, remote, .. } =
            &self.kind
            && local == remote
        {
            return refuse(format!(
                "remote={remote} is this port itself; write the address that the peer sends from"
            ));
        }
        if let PortKind::Dgram { path, peers: Peers::One(remote), .. } = &self.kind
            && path == remote
        {
            return refuse("remote= is this port itself; write the path of the peer's socket");
        }
        Ok(())
    }
}

impl PortOptions {
    /// Sets one option; false where `key` is none of those that every port takes.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, SpecError> {
        match key {
            "name" => self.name = Some(parse_name(value)?),
            "queue" => self.queue = parse_size(value, QUEUE_MIN, QUEUE_MAX, "queue")?,
            "pause" => {
                self.pause = parse_duration(value, PAUSE, "pause", "0ms to 1000ms")?;
            }
            "max-frame" => {
                self.max_frame = parse_size(value, ethernet::HEADER_LEN, stream::MAX_FRAME, "max-frame")?;
            }
            "pad" if value == "60" => self.pad = ethernet::MIN_LEN,
            "pad" => return refuse(format!("pad={value}: write pad=60, or leave it out")),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl PortKind {
    /// Sets one option; false where this kind takes no `key`.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, SpecError> {
        match (key, self) {
            ("mode", Self::Unix { name: UnixName::Path(_), mode, .. } | Self::Dgram { mode, .. }) => {
                *mode = parse_mode(value)?;
            }
            ("any-user", Self::Unix { name: UnixName::Abstract(_), any_user, .. }) => {
                *any_user = parse_switch(value, key)?;
            }
            (
                _,
                Self::Udp { peers: Peers::Any(limits), .. } | Self::Dgram { peers: Peers::Any(limits), .. },
            ) => {
                return limits.set(key, value);
            }
            ("iface", Self::Mcast(group)) => {
                if value.is_empty() {
                    return refuse(
                        "iface= is empty; write an address of the interface (127.0.0.1) or its name (lo)",
                    );
                }
                group.interface = Some(match value.parse() {
                    Ok(address) => Interface::Address(address),
                    Err(_) => Interface::Name(value.to_owned()),
                });
            }
            ("ttl", Self::Mcast(group)) => group.ttl = parse_number(value, 0, u8::MAX, key)?,
            (_, Self::L2tpv3 { framing, .. }) => return set_l2tpv3(framing, key, value),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl PeerLimits {
    fn set(&mut self, key: &str, value: &str) -> Result<bool, SpecError> {
        match key {
            "max-peers" => self.max = parse_number(value, 1, MAX_PORTS, key)?,
            "idle" => self.idle = parse_duration(value, IDLE, key, "1s to 86400s")?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The names are QEMU's: tx is what we send.
fn set_l2tpv3(framing: &mut L2tpv3, key: &str, value: &str) -> Result<bool, SpecError> {
    match key {
        "txsession" => framing.tx_session = parse_number(value, 0, u32::MAX, key)?,
        "rxsession" => framing.rx_session = Some(parse_number(value, 0, u32::MAX, key)?),
        "txcookie" => framing.tx_cookie = Some(parse_number(value, 0, u64::MAX, key)?),
        "rxcookie" => framing.rx_cookie = Some(parse_number(value, 0, u64::MAX, key)?),
        "cookie64" => framing.has_long_cookies = parse_switch(value, key)?,
        "counter" => framing.has_counter = parse_switch(value, key)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The kind that stands before the first comma; `remote` is the value of that option.
fn parse_kind(place: &str, remote: Option<&str>) -> Result<PortKind, SpecError> {
    let Some((kind, address)) = place.split_once(':') else {
        return refuse(format!("'{place}' is no port; write {KINDS}"));
    };
    let parsed = match kind {
        "unix" => PortKind::Unix { name: parse_unix_name(address)?, mode: 0o600, any_user: false },
        "tcp" => PortKind::Tcp(parse_host_port(address, Some("127.0.0.1"), 0)?),
        "connect" => PortKind::Connect(match address.split_once(':') {
            Some(("unix", name)) => Remote::Unix(parse_unix_name(name)?),
            Some(("tcp", host_port)) => Remote::Tcp(parse_host_port(host_port, None, 1)?),
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
        "udp" => {
            let remote = remote.map(|remote| parse_host_port(remote, None, 1)).transpose()?;
            let local = parse_local(address, remote.as_ref())?;
            return Ok(PortKind::Udp { local, peers: remote.into() });
        }
        "dgram" => {
            let remote = remote.map(parse_path).transpose()?;
            return Ok(PortKind::Dgram { path: parse_path(address)?, mode: 0o600, peers: remote.into() });
        }
        "l2tpv3" => {
            let Some(remote) = remote else {
                return refuse(format!(
                    "'{place}' needs remote=HOST:PORT, the address that the peer sends from"
                ));
            };
            let remote = parse_host_port(remote, None, 1)?;
            let local = parse_local(address, Some(&remote))?;
            return Ok(PortKind::L2tpv3 { local, remote, framing: L2tpv3::default() });
        }
        "mcast" => PortKind::Mcast(parse_group(address)?),
        _ => return refuse(format!("'{kind}:' is no kind of port; write {KINDS}")),
    };
    if remote.is_some() {
        return refuse("this kind of port takes no 'remote='");
    }
    Ok(parsed)
}

/// Our own address: on this host only, unless it is spelled out.
fn parse_local(text: &str, remote: Option<&HostPort>) -> Result<HostPort, SpecError> {
    let is_ipv6 =
        remote.is_some_and(|remote| remote.host.parse().is_ok_and(|address: IpAddr| address.is_ipv6()));
    parse_host_port(text, Some(if is_ipv6 { "::1" } else { "127.0.0.1" }), 1)
}

fn parse_path(text: &str) -> Result<PathBuf, SpecError> {
    match parse_unix_name(text)? {
        UnixName::Path(path) => Ok(path),
        UnixName::Abstract(_) => refuse(format!(
            "'{text}': anybody may send to an abstract name; write a path, whose permissions decide"
        )),
    }
}

fn parse_group(text: &str) -> Result<Group, SpecError> {
    let HostPort { host, port } = parse_host_port(text, None, 1)?;
    match host.parse::<IpAddr>() {
        Ok(group) if group.is_multicast() => {
            Ok(Group { address: SocketAddr::new(group, port), interface: None, ttl: 1 })
        }
        Ok(IpAddr::V4(_)) => refuse(format!(
            "{host} is no multicast group; write one of 224.0.0.0 to 239.255.255.255, as in mcast:239.0.0.1:{port}"
        )),
        Ok(IpAddr::V6(_)) => refuse(format!(
            "{host} is no multicast group; write one that begins with ff, as in mcast:[ff15::1]:{port}"
        )),
        Err(_) => {
            refuse(format!("'{host}' is no address; write a multicast group, as in mcast:239.0.0.1:{port}"))
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
                pause: PAUSE.1,
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
