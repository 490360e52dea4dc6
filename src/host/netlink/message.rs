//! The messages of rtnetlink, `linux/rtnetlink.h`: a header of fixed size, then attributes.
//!
//! They are kept as the kernel wrote them. What qhub takes from one interface and gives to another is so
//! complete, with what this program has never heard of.

use std::io;

use netlink_packet_core::{
    DecodeError, NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLA_HEADER_SIZE, NLA_TYPE_MASK, NetlinkDeserializable,
    NetlinkHeader, NetlinkSerializable, NlasIterator,
};
use nix::libc;

/// One message, without the header that all of netlink has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) header: Vec<u8>,
    pub(super) attributes: Vec<Attribute>,
}

/// An attribute: a type, with its flags, and octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    pub(super) kind: u16,
    pub(super) value: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u16, header: &[u8]) -> Self {
        Self { kind, header: header.to_vec(), attributes: Vec::new() }
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, kind: u16, value: impl Into<Vec<u8>>) -> Self {
        self.attributes.push(Attribute::new(kind, value));
        self
    }

    /// The value of the first attribute of this type.
    pub(super) fn value(&self, kind: u16) -> Option<&[u8]> {
        value(&self.attributes, kind)
    }

    /// The same, as a number.
    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        self.value(kind).and_then(number)
    }

    /// The same, as text.
    pub(super) fn text(&self, kind: u16) -> Option<String> {
        self.value(kind).map(text)
    }

    /// Gives the attribute a value, whether or not it had one.
    pub(super) fn set(&mut self, kind: u16, value: impl Into<Vec<u8>>) {
        let value = value.into();
        match self.attributes.iter_mut().find(|attribute| attribute.is(kind)) {
            Some(attribute) => attribute.value = value,
            None => self.attributes.push(Attribute { kind, value }),
        }
    }

    /// Takes the attribute away.
    pub(super) fn unset(&mut self, kind: u16) {
        self.attributes.retain(|attribute| !attribute.is(kind));
    }

    /// A number of four octets in the header, 0 past its end.
    pub(super) fn header_number(&self, offset: usize) -> u32 {
        self.header.get(offset..offset + 4).and_then(number).unwrap_or(0)
    }

    /// Writes such a number.
    pub(super) fn set_header_number(&mut self, offset: usize, number: u32) {
        if let Some(field) = self.header.get_mut(offset..offset + 4) {
            field.copy_from_slice(&number.to_ne_bytes());
        }
    }

    /// An octet of the header, 0 past its end.
    pub(super) fn header_octet(&self, offset: usize) -> u8 {
        self.header.get(offset).copied().unwrap_or(0)
    }

    /// What stands behind the header of netlink.
    pub(super) fn to_octets(&self) -> Vec<u8> {
        [&self.header[..], &octets(&self.attributes)].concat()
    }

    /// Reads what [`Self::to_octets`] gives.
    pub(super) fn parse(kind: u16, octets: &[u8]) -> Result<Self, DecodeError> {
        let (header, rest) = octets
            .split_at_checked(header_length(kind))
            .ok_or_else(|| DecodeError::from("a message is shorter than its header"))?;
        Ok(Self { kind, header: header.to_vec(), attributes: attributes(rest)? })
    }
}

impl Attribute {
    pub(super) fn new(kind: u16, value: impl Into<Vec<u8>>) -> Self {
        Self { kind, value: value.into() }
    }

    /// Is it of this type, whatever its flags?
    pub(super) fn is(&self, kind: u16) -> bool {
        self.kind & NLA_TYPE_MASK == kind
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.to_octets().len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.to_octets());
    }
}

impl NetlinkDeserializable for Message {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, io::Error> {
        Self::parse(header.message_type, payload).map_err(io::Error::other)
    }
}

/// How long the header of a message is: `ifinfomsg`, `ifaddrmsg`, `rtmsg`.
fn header_length(kind: u16) -> usize {
    match kind {
        libc::RTM_NEWLINK..=libc::RTM_SETLINK => 16,
        libc::RTM_NEWADDR..=libc::RTM_GETADDR => 8,
        libc::RTM_NEWROUTE..=libc::RTM_GETROUTE => 12,
        _ => 0,
    }
}

/// The attributes in these octets.
pub(super) fn attributes(octets: &[u8]) -> Result<Vec<Attribute>, DecodeError> {
    NlasIterator::new(octets)
        .map(|found| {
            let found = found?;
            let nested = if found.nested_flag() { NLA_F_NESTED } else { 0 };
            let order = if found.network_byte_order_flag() { NLA_F_NET_BYTEORDER } else { 0 };
            Ok(Attribute::new(found.kind() | nested | order, found.value()))
        })
        .collect()
}

/// The value of the first attribute of this type.
pub(super) fn value(attributes: &[Attribute], kind: u16) -> Option<&[u8]> {
    attributes.iter().find(|attribute| attribute.is(kind)).map(|attribute| attribute.value.as_slice())
}

/// The octets of these attributes, each with what fills it up to a multiple of four.
pub(super) fn octets(attributes: &[Attribute]) -> Vec<u8> {
    let mut octets = Vec::new();
    for Attribute { kind, value } in attributes {
        // The kernel knows no longer one, and refuses what is cut.
        let length = u16::try_from(NLA_HEADER_SIZE + value.len()).unwrap_or(u16::MAX);
        octets.extend(length.to_ne_bytes());
        octets.extend(kind.to_ne_bytes());
        octets.extend(value);
        octets.resize(octets.len().next_multiple_of(4), 0);
    }
    octets
}

/// A number in the host's order; `None` unless it has four octets.
pub(super) fn number(octets: &[u8]) -> Option<u32> {
    octets.try_into().ok().map(u32::from_ne_bytes)
}

/// A name, which the kernel ends with a zero.
pub(super) fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).trim_end_matches('\0').to_owned()
}

/// The value of a name.
pub(super) fn text_value(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Octets as hexadecimal digits.
pub(super) fn to_hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Reads what [`to_hex`] gives.
pub(super) fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

/// Has a message written to a journal as what the kernel gave, with a name for who reads it.
macro_rules! journalled {
    ($name:ident, $kind:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                (self.to_string(), $crate::host::netlink::message::to_hex(&self.0.to_octets()))
                    .serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let (_, digits) = <(String, String)>::deserialize(deserializer)?;
                let octets = $crate::host::netlink::message::from_hex(&digits);
                let message = Message::parse($kind, &octets.unwrap_or_default());
                message.map(Self).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(super) use journalled;
