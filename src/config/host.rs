//! Ports of this host's own network: TAPs, bridges by QEMU's helper, macvtaps and packet sockets.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hub_protocol::mac::Mac;

use super::Cidr;
use super::spec::{SpecError, refuse};
use super::text::{parse_number, parse_switch};

/// Octets of an interface's name.
const NAME_MAX: usize = 15;

/// What an interface may carry at once, in octets of IP. A TAP counts the Ethernet header as well.
const MTU: (u32, u32) = (68, 65_521);

/// The name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

/// `tap:[NAME]`: a TAP, made or opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Its name, or a pattern like `vm%d` that the system numbers.
    pub name: String,
    /// The bridge that it is a port of.
    pub bridge: Option<InterfaceName>,
    /// The named network namespace that it is in.
    pub netns: Option<String>,
    /// Its addresses.
    pub addresses: Vec<Cidr>,
    /// The longest packet that it takes, in octets.
    pub mtu: Option<u32>,
    /// Is it to stay when the hub is gone?
    pub is_persistent: bool,
    /// Is it to be brought up?
    pub is_up: bool,
    /// May it carry what is still to be segmented and summed?
    pub offload: bool,
    /// Who may open it again, where it stays; without one, who runs the hub.
    pub owner: Option<Owner>,
}

/// A user of this host, with the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// `bridge:BRIDGE`: a TAP that QEMU's helper makes on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperBridge {
    /// The bridge.
    pub bridge: InterfaceName,
    /// The helper, where it is not in one of the usual places.
    pub helper: Option<PathBuf>,
    /// As of a TAP.
    pub offload: bool,
    /// Who runs a helper that was named, where root is going to be somebody else.
    pub user: Option<Owner>,
}

/// `macvtap:/dev/tapN`, `macvtap:LOWER`: a second card on the cable of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Macvtap {
    /// Where it is.
    pub place: MacvtapPlace,
    /// As of a TAP.
    pub offload: bool,
    /// The address of one that is made; without one, a random one.
    pub mac: Option<Mac>,
}

/// A macvtap that there is, or one to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MacvtapPlace {
    /// Its device.
    Device(PathBuf),
    /// To be made on an interface, as long as the hub lives.
    Lower(InterfaceName, MacvtapMode),
}

/// Who else on the same interface a macvtap hears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacvtapMode {
    /// The others in this mode.
    #[default]
    Bridge,
    /// Nobody.
    Private,
    /// Whatever a switch outside sends back.
    Vepa,
    /// There are no others: the interface is its own.
    Passthru,
}

impl FromStr for InterfaceName {
    type Err = SpecError;

    fn from_str(name: &str) -> Result<Self, SpecError> {
        check_interface(name)?;
        if name.contains('%') {
            return refuse(format!(
                "'{name}' is no name of an interface; '%' stands in patterns of new TAPs only"
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

impl AsRef<str> for InterfaceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tap {
    pub(super) fn parse(name: &str) -> Result<Self, SpecError> {
        if !name.is_empty() {
            check_interface(name)?;
            if name.matches('%').count() != name.matches("%d").count() || name.matches('%').count() > 1 {
                return refuse(format!(
                    "'{name}' is no pattern of names; write one like vm%d, which is numbered"
                ));
            }
        }
        Ok(Self {
            name: if name.is_empty() { "tap%d".to_owned() } else { name.to_owned() },
            bridge: None,
            netns: None,
            addresses: Vec::new(),
            mtu: None,
            is_persistent: false,
            is_up: true,
            offload: true,
            owner: None,
        })
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, SpecError> {
        match key {
            "bridge" => self.bridge = Some(value.parse()?),
            "netns" => {
                if value.is_empty() || value.contains('/') || value.starts_with('.') {
                    return refuse(format!("netns={value}: write a name that 'ip netns' lists"));
                }
                self.netns = Some(value.to_owned());
            }
            "addr" => self.addresses.push(parse_address(value)?),
            "mtu" => self.mtu = Some(parse_number(value, MTU.0, MTU.1, key)?),
            "persist" => self.is_persistent = parse_switch(value, key)?,
            "up" => self.is_up = parse_switch(value, key)?,
            "offload" => self.offload = parse_switch(value, key)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl HelperBridge {
    pub(super) fn parse(bridge: &str) -> Result<Self, SpecError> {
        Ok(Self { bridge: bridge.parse()?, helper: None, offload: true, user: None })
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, SpecError> {
        match key {
            "helper" if value.is_empty() => {
                return refuse("helper= is empty; write the path of qemu-bridge-helper");
            }
            "helper" => self.helper = Some(PathBuf::from(value)),
            "offload" => self.offload = parse_switch(value, key)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Macvtap {
    pub(super) fn parse(place: &str) -> Result<Self, SpecError> {
        let place = if let Some(number) = place.strip_prefix("/dev/tap") {
            if number.parse::<u32>().is_err() {
                return refuse(format!("'{place}' is no macvtap; write /dev/tapN with the number of one"));
            }
            MacvtapPlace::Device(PathBuf::from(place))
        } else {
            MacvtapPlace::Lower(place.parse()?, MacvtapMode::default())
        };
        Ok(Self { place, offload: true, mac: None })
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, SpecError> {
        match (key, &mut self.place) {
            ("mode", MacvtapPlace::Lower(_, mode)) => {
                *mode = match value {
                    "bridge" => MacvtapMode::Bridge,
                    "private" => MacvtapMode::Private,
                    "vepa" => MacvtapMode::Vepa,
                    "passthru" => MacvtapMode::Passthru,
                    _ => return refuse(format!("mode={value}: write bridge, private, vepa or passthru")),
                };
            }
            ("offload", _) => self.offload = parse_switch(value, key)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl fmt::Display for MacvtapPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "{}", path.display()),
            Self::Lower(lower, _) => write!(f, "{lower}"),
        }
    }
}

/// An address that an interface may have.
fn parse_address(text: &str) -> Result<Cidr, SpecError> {
    match text.parse::<Cidr>() {
        Ok(cidr) if cidr.ip().is_unspecified() || cidr.ip().is_multicast() => refuse(format!(
            "addr={text}: {} is no address of one host; write one like 10.0.0.1/24",
            cidr.ip()
        )),
        Ok(cidr) => Ok(cidr),
        Err(reason) => refuse(format!("addr={reason}")),
    }
}

/// Refuses what the system takes for no name of an interface.
fn check_interface(name: &str) -> Result<(), SpecError> {
    if name.len() > NAME_MAX {
        return refuse(format!(
            "the name of an interface has at most {NAME_MAX} octets, '{name}' has {}; choose a shorter one",
            name.len()
        ));
    }
    let is_plain = |char: char| char.is_ascii_graphic() && !matches!(char, '/' | ':');
    if name.is_empty() || name == "." || name == ".." || !name.chars().all(is_plain) {
        return refuse(format!("'{name}' is no name of an interface; 'ip link' lists those that there are"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PortKind, PortSpec};

    fn parse(text: &str) -> Result<PortKind, String> {
        text.parse::<PortSpec>().map(|spec| spec.kind).map_err(|error| error.to_string())
    }

    #[test]
    fn a_tap_takes_what_it_is_told() {
        let Ok(PortKind::Tap(tap)) = parse("tap:") else { panic!("a tap") };
        assert_eq!(
            (tap.name.as_str(), tap.is_up, tap.offload, tap.is_persistent),
            ("tap%d", true, true, false)
        );
        let text = "tap:vm%d,bridge=br0,netns=lab,addr=10.0.0.1/24,addr=fd00::1/64,mtu=9000,persist=on,up=off,offload=off";
        let Ok(PortKind::Tap(tap)) = parse(text) else { panic!("a tap") };
        assert_eq!((tap.name.as_str(), tap.netns.as_deref(), tap.mtu), ("vm%d", Some("lab"), Some(9000)));
        assert_eq!(tap.bridge.map(|bridge| bridge.to_string()).as_deref(), Some("br0"));
        let shown: Vec<String> = tap.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1/24", "fd00::1/64"]);
        assert_eq!((tap.is_up, tap.offload, tap.is_persistent), (false, false, true));
    }

    #[test]
    fn others_take_what_they_are_told() {
        let Ok(PortKind::Bridge(bridge)) = parse("bridge:br0,helper=/a/b,offload=off") else {
            panic!("a bridge")
        };
        assert_eq!(
            (bridge.bridge.as_ref(), bridge.helper, bridge.offload),
            ("br0", Some("/a/b".into()), false)
        );
        let Ok(PortKind::Macvtap(macvtap)) = parse("macvtap:eth0,mode=passthru") else { panic!("a macvtap") };
        assert_eq!(macvtap.place, MacvtapPlace::Lower(InterfaceName("eth0".into()), MacvtapMode::Passthru));
        let Ok(PortKind::Macvtap(macvtap)) = parse("macvtap:/dev/tap7") else { panic!("a macvtap") };
        assert_eq!(macvtap.place, MacvtapPlace::Device("/dev/tap7".into()));
        assert_eq!(parse("packet:eth0"), Ok(PortKind::Packet(InterfaceName("eth0".into()))));
    }

    #[test]
    fn names_and_numbers_have_two_ends() {
        for good in [
            "tap:a",
            "tap:abcdefghijklmno",
            "tap:t,mtu=68",
            "tap:t,mtu=65521",
            "tap:a%d",
            "tap:t,addr=10.0.0.1/32",
            "tap:t,addr=fd00::1/128",
        ] {
            parse(good).unwrap();
        }
        for (bad, said) in [
            ("tap:abcdefghijklmnop", "at most 15 octets, 'abcdefghijklmnop' has 16"),
            ("tap:a/b", "no name of an interface"),
            ("tap:a b", "no name of an interface"),
            ("tap:..", "no name of an interface"),
            ("tap:a%s", "write one like vm%d"),
            ("tap:a%d%d", "write one like vm%d"),
            ("tap:t,mtu=67", "write 68 to 65521"),
            ("tap:t,mtu=65522", "write 68 to 65521"),
            ("tap:t,addr=10.0.0.1/33", "a prefix of more than 32 bits"),
            ("tap:t,addr=10.0.0.1", "no length of a prefix"),
            ("tap:t,addr=fd00::1/129", "a prefix of more than 128 bits"),
            ("tap:t,addr=224.0.0.1/24", "no address of one host"),
            ("tap:t,addr=0.0.0.0/0", "no address of one host"),
            ("tap:t,netns=a/b", "'ip netns' lists"),
            ("tap:t,netns=", "'ip netns' lists"),
            ("tap:t,bridge=", "no name of an interface"),
            ("tap:t,up=yes", "write on or off"),
            ("tap:t,remote=x", "takes no 'remote='"),
            ("tap:t,mode=bridge", "takes no 'mode='"),
            ("bridge:", "no name of an interface"),
            ("bridge:br%d", "'%' stands in patterns"),
            ("bridge:br0,helper=", "helper= is empty"),
            ("macvtap:eth0,mode=hub", "write bridge, private, vepa or passthru"),
            ("macvtap:/dev/tap1,mode=bridge", "takes no 'mode='"),
            ("macvtap:", "no name of an interface"),
            ("macvtap:/dev/net/tun", "no name of an interface"),
            ("macvtap:/dev/tap/../sda", "write /dev/tapN"),
            ("macvtap:/dev/tap", "write /dev/tapN"),
            ("packet:", "no name of an interface"),
            ("packet:eth0,offload=off", "takes no 'offload='"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(said), "{bad}: {error}");
        }
    }
}
