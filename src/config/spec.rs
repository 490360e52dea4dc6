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
    Group, HelperBridge, HostPort, Interface, Macvtap, PeerLimits, Peers, PortKind, PortOptions, PortSpec,
    QUEUE_MAX, QUEUE_MIN, Remote, Tap, UnixName, Vde, VdePlace,
};
use crate::bridge::MAX_PORTS;

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

const KINDS: &str = "unix:PATH, tcp:[HOST:]PORT, connect:unix:PATH, connect:tcp:HOST:PORT, connect:vde:DIR, fd:N, udp:[HOST:]PORT, \
                     dgram:PATH, mcast:GROUP:PORT, l2tpv3:[HOST:]PORT, vde:DIR, tap:[NAME], bridge:BRIDGE, \
                     macvtap:INTERFACE or packet:INTERFACE";

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
        if matches!(spec.kind, PortKind::L2tpv3 { .. }) && !pairs.iter().any(|(key, _)| key == "txsession") {
            return refuse(format!(
                "'{place}' needs txsession=N, the session that the peer expects (its rxsession=)"
            ));
        }
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
        if let PortKind::Connect(Remote::Vde(place)) = &self.kind {
            place.check()?;
        }
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
            (_, Self::Vde(vde)) => return vde.set(key, value),
            (_, Self::Connect(Remote::Vde(place))) => return place.set(key, value),
            (_, Self::Tap(tap)) => return tap.set(key, value),
            (_, Self::Bridge(bridge)) => return bridge.set(key, value),
            (_, Self::Macvtap(macvtap)) => return macvtap.set(key, value),
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
            Some(("vde", folder)) => Remote::Vde(VdePlace::parse(folder)?),
            _ => {
                return refuse(format!(
                    "'{place}': write connect:unix:PATH, connect:tcp:HOST:PORT or connect:vde:DIR"
                ));
            }
        }),
        "fd" => match address.parse() {
            Ok(fd @ (0 | 3..)) => PortKind::Fd(fd),
            _ => {
                return refuse(format!(
                    "'{place}': write fd:N with the number of an inherited socket or TAP (0, 3, 4, ...)"
                ));
            }
        },
        "udp" => {
            let remote = remote.map(parse_remote).transpose()?;
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
            let remote = parse_remote(remote)?;
            let local = parse_local(address, Some(&remote))?;
            return Ok(PortKind::L2tpv3 { local, remote, framing: L2tpv3::default() });
        }
        "mcast" => PortKind::Mcast(parse_group(address)?),
        "vde" => PortKind::Vde(Vde::parse(address)?),
        "tap" => PortKind::Tap(Tap::parse(address)?),
        "bridge" => PortKind::Bridge(HelperBridge::parse(address)?),
        "macvtap" => PortKind::Macvtap(Macvtap::parse(address)?),
        "packet" => PortKind::Packet(address.parse()?),
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
    let local = parse_host_port(text, Some(if is_ipv6 { "::1" } else { "127.0.0.1" }), 1)?;
    if local.host.parse().is_ok_and(|address: IpAddr| address.is_multicast()) {
        return refuse(format!("'{text}' is a multicast group; join it with mcast:{text}"));
    }
    Ok(local)
}

/// The address of one peer.
fn parse_remote(text: &str) -> Result<HostPort, SpecError> {
    let remote = parse_host_port(text, None, 1)?;
    match remote.host.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => {
            refuse(format!("remote={text}: write the address that the peer sends from, or leave out remote="))
        }
        Ok(address) if address.is_multicast() => {
            refuse(format!("remote={text}: a multicast group is joined by mcast:{text}"))
        }
        Ok(IpAddr::V4(address)) if address.is_broadcast() => {
            refuse(format!("remote={text} is everybody; write the address of one peer"))
        }
        _ => Ok(remote),
    }
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
            ("udp:5555", "udp:127.0.0.1:5555"),
            ("udp:[::]:5555", "udp:[::]:5555"),
            ("udp:5555,remote=localhost:1", "udp:127.0.0.1:5555"),
            ("udp:5555,remote=[fd77::1]:1", "udp:[::1]:5555"),
            ("dgram:/run/hub,,1,remote=/run/vm", "dgram:/run/hub,1"),
            ("mcast:239.0.0.1:1,iface=lo", "mcast:239.0.0.1:1"),
            ("mcast:[ff15::1]:65535", "mcast:[ff15::1]:65535"),
            ("l2tpv3:1701,remote=10.0.0.1:1,txsession=0", "l2tpv3:127.0.0.1:1701"),
            ("l2tpv3:0.0.0.0:1701,remote=h:1,txsession=1", "l2tpv3:0.0.0.0:1701"),
        ] {
            assert_eq!(parse(text).kind.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn datagram_ports_take_what_they_are_told() {
        let local = |host: &str| HostPort { host: host.to_owned(), port: 5 };
        let any = |max, idle| PeerLimits { max, idle: Duration::from_secs(idle) };
        for (text, limits) in [
            ("udp:5", any(64, 300)),
            ("udp:5,max-peers=1,idle=1s", any(1, 1)),
            ("udp:5,idle=86400s,max-peers=1024", any(1024, 86_400)),
            ("udp:5,idle=86400000ms", any(64, 86_400)),
        ] {
            let kind = PortKind::Udp { local: local("127.0.0.1"), peers: Peers::Any(limits) };
            assert_eq!(parse(text).kind, kind, "{text}");
        }
        let spec = parse("udp:h:5,name=lab,remote=[::1]:65535,pad=60");
        let remote = HostPort { host: "::1".to_owned(), port: 65_535 };
        assert_eq!(spec.kind, PortKind::Udp { local: local("h"), peers: Peers::One(remote) });
        assert_eq!((spec.options.name.as_deref(), spec.options.pad), (Some("lab"), 60));

        let dgram = |mode, peers| PortKind::Dgram { path: "/a".into(), mode, peers };
        assert_eq!(parse("dgram:/a").kind, dgram(0o600, Peers::Any(any(64, 300))));
        assert_eq!(parse("dgram:/a,mode=0,idle=2s").kind, dgram(0, Peers::Any(any(64, 2))));
        assert_eq!(parse("dgram:/a,mode=0777,remote=b,,c").kind, dgram(0o777, Peers::One("b,c".into())));

        let group = |address: &str, interface, ttl| {
            PortKind::Mcast(Group { address: address.parse().unwrap(), interface, ttl })
        };
        let own = |address: &str| Some(Interface::Address(address.parse().unwrap()));
        let named = |name: &str| Some(Interface::Name(name.to_owned()));
        for (text, kind) in [
            ("mcast:224.0.0.0:1", group("224.0.0.0:1", None, 1)),
            ("mcast:239.255.255.255:1,ttl=0", group("239.255.255.255:1", None, 0)),
            ("mcast:239.0.0.1:1,ttl=255,iface=127.0.0.1", group("239.0.0.1:1", own("127.0.0.1"), 255)),
            ("mcast:[ff15::1]:1,iface=::1", group("[ff15::1]:1", own("::1"), 1)),
            ("mcast:[ff15::1]:1,iface=eth0", group("[ff15::1]:1", named("eth0"), 1)),
        ] {
            assert_eq!(parse(text).kind, kind, "{text}");
        }

        let l2tpv3 = |framing| {
            let remote = HostPort { host: "10.0.0.1".to_owned(), port: 6 };
            PortKind::L2tpv3 { local: local("127.0.0.1"), remote, framing }
        };
        for (text, framing) in [
            ("txsession=0", L2tpv3::default()),
            (
                "txsession=0xffffffff,rxsession=4294967295,counter=on,cookie64=off",
                L2tpv3 {
                    tx_session: u32::MAX,
                    rx_session: Some(u32::MAX),
                    has_counter: true,
                    ..L2tpv3::default()
                },
            ),
            (
                "txcookie=0xffffffff,rxcookie=0",
                L2tpv3 { tx_cookie: Some(0xffff_ffff), rx_cookie: Some(0), ..L2tpv3::default() },
            ),
            (
                "cookie64=on,txcookie=1,rxcookie=0xffffffffffffffff",
                L2tpv3 {
                    tx_cookie: Some(1),
                    rx_cookie: Some(u64::MAX),
                    has_long_cookies: true,
                    ..L2tpv3::default()
                },
            ),
        ] {
            assert_eq!(
                parse(&format!("l2tpv3:5,txsession=0,{text},remote=10.0.0.1:6")).kind,
                l2tpv3(framing),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_datagram_ports_say_what_would_be_right() {
        for (text, hint) in [
            ("udp:0", "port 0 is nobody's; write 1 to 65535"),
            ("udp:65536", "write 1 to 65535"),
            ("udp:", "write 1 to 65535"),
            ("udp:::1:5", "brackets"),
            ("udp:1,max-peers=0", "write 1 to 1024"),
            ("udp:1,max-peers=1025", "write 1 to 1024"),
            ("udp:1,max-peers=", "write 1 to 1024"),
            ("udp:1,max-peers=-1", "write 1 to 1024"),
            ("udp:1,idle=999ms", "write 1s to 86400s"),
            ("udp:1,idle=86401s", "write 1s to 86400s"),
            ("udp:1,idle=60", "write 1s to 86400s"),
            ("udp:1,remote=", "names no host; write HOST:PORT"),
            ("udp:1,remote=5", "names no host; write HOST:PORT"),
            ("udp:1,remote=h:0", "port 0"),
            ("udp:1,remote=127.0.0.1:1", "is this port itself; write the address that the peer sends from"),
            ("udp:[::1]:1,remote=[::1]:1", "is this port itself"),
            ("udp:1,remote=h:2,remote=h:3", "'remote=' is given twice"),
            ("udp:1,max-peers=2,remote=h:2", "'max-peers=' is for a port without remote="),
            ("udp:1,remote=h:2,idle=2s", "'idle=' is for a port without remote="),
            ("udp:1,mode=0600", "takes no 'mode='"),
            ("udp:1,ttl=1", "takes no 'ttl='"),
            ("dgram:", "needs a name"),
            ("dgram:@x", "write a path, whose permissions decide"),
            ("dgram:/a,remote=@x", "write a path"),
            ("dgram:/a,remote=", "needs a name"),
            ("dgram:/a,remote=/a", "is this port itself; write the path of the peer's socket"),
            ("dgram:/a,remote=/b,remote=/c", "'remote=' is given twice"),
            ("dgram:/a,remote=/b,max-peers=1", "'max-peers=' is for a port without remote="),
            ("dgram:/a,mode=8", "octal"),
            ("dgram:/a,any-user=on", "takes no 'any-user='"),
            ("mcast:10.0.0.1:1", "write one of 224.0.0.0 to 239.255.255.255, as in mcast:239.0.0.1:1"),
            ("mcast:223.255.255.255:1", "224.0.0.0"),
            ("mcast:240.0.0.0:1", "224.0.0.0"),
            ("mcast:[fd00::1]:1", "begins with ff, as in mcast:[ff15::1]:1"),
            ("mcast:239.0.0.1:0", "port 0 is nobody's; write 1 to 65535"),
            ("mcast:239.0.0.1", "HOST:PORT"),
            ("mcast:name:1", "'name' is no address; write a multicast group, as in mcast:239.0.0.1:1"),
            ("mcast:[ff15::1]:1,iface=127.0.0.1", "write an IPv6 address of the interface, or its name"),
            ("mcast:239.0.0.1:1,iface=::1", "write an IPv4 address of the interface, or its name"),
            ("mcast:239.0.0.1:1,iface=", "iface= is empty; write an address of the interface"),
            ("mcast:239.0.0.1:1,ttl=256", "write 0 to 255"),
            ("mcast:239.0.0.1:1,ttl=-1", "write 0 to 255"),
            ("mcast:239.0.0.1:1,remote=h:1", "takes no 'remote='"),
            ("mcast:239.0.0.1:1,max-peers=1", "takes no 'max-peers='"),
            ("l2tpv3:1", "needs remote=HOST:PORT, the address that the peer sends from"),
            ("l2tpv3:1,remote=127.0.0.1:1", "is this port itself"),
            ("l2tpv3:1,remote=127.0.0.1:2", "needs txsession=N"),
            ("udp:1,remote=5", "write HOST:PORT"),
            ("udp:1,remote=0.0.0.0:5", "the address that the peer sends from"),
            ("udp:1,remote=239.0.0.1:5", "mcast:239.0.0.1:5"),
            ("l2tpv3:0,remote=h:1", "port 0"),
            ("l2tpv3:1,remote=h:1,txcookie=1", "write txcookie= and rxcookie="),
            ("l2tpv3:1,remote=h:1,rxcookie=1", "write txcookie= and rxcookie="),
            ("l2tpv3:1,remote=h:1,txcookie=0x100000000,rxcookie=1", "add cookie64=on"),
            ("l2tpv3:1,remote=h:1,txcookie=1,rxcookie=4294967296,cookie64=off", "add cookie64=on"),
            (
                "l2tpv3:1,remote=h:1,txcookie=0x10000000000000000,rxcookie=1",
                "write 0 to 18446744073709551615",
            ),
            ("l2tpv3:1,remote=h:1,txsession=0x100000000", "write 0 to 4294967295"),
            ("l2tpv3:1,remote=h:1,rxsession=0x", "write 0 to 4294967295"),
            ("l2tpv3:1,remote=h:1,counter=1", "on or off"),
            ("l2tpv3:1,remote=h:1,idle=1s", "takes no 'idle='"),
            ("l2tpv3:1,remote=h:1,remote=h:2", "'remote=' is given twice"),
            ("tcp:1,remote=h:1", "takes no 'remote='"),
            ("unix:/a,remote=/b", "takes no 'remote='"),
            ("fd:3,remote=/b", "takes no 'remote='"),
            ("tcp:1,max-peers=1", "takes no 'max-peers='"),
            ("fd:3,idle=1s", "takes no 'idle='"),
        ] {
            match text.parse::<PortSpec>() {
                Err(error) => assert!(error.to_string().contains(hint), "{text}: {error}"),
                Ok(spec) => panic!("{text}: {spec:?}"),
            }
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
