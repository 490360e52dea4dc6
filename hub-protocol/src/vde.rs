//! How a client joins a VDE switch, on the stream socket `ctl` of its folder. All numbers are in the byte
//! order of the host, for both ends are on it.
//!
//! ```text
//! request 3: u32 magic | u32 3    | u32 kind, port << 8 | u16 AF_UNIX | path[108] | description
//! request 1: u32 magic | u32 kind | addr[6]             | u16 AF_UNIX | path[108] | description
//! reply:                                                  u16 AF_UNIX | path[108]
//! ```
//!
//! The client's path is that of its datagram socket, the switch's that of the one it made for this client.
//! The description runs to the end of the message, which its writer sends at once.

use std::fmt;

/// Octets of a reply.
pub const REPLY_LEN: usize = FAMILY_LEN + PATH_LEN;

/// Octets of a description at the most.
pub const DESCRIPTION_MAX: usize = 128;

/// Octets of a request at the most.
pub const REQUEST_MAX: usize = V1_ADDRESS + REPLY_LEN + DESCRIPTION_MAX;

const MAGIC: u32 = 0xfeed_face;
const VERSION: u32 = 3;
const AF_UNIX: u16 = 1;
const FAMILY_LEN: usize = 2;
const PATH_LEN: usize = 108;

/// Where the address of the client's socket begins.
const V3_ADDRESS: usize = 12;
const V1_ADDRESS: usize = 14;

/// The kinds of request; in version 3 the port stands above the lowest octet.
const NEW_CONTROL: u32 = 0;
const NEW_PORT_0: u32 = 1;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The number of the port that it wants, or any.
    pub port: Option<u32>,
    /// The absolute path of its datagram socket.
    pub path: Vec<u8>,
    /// Who it says it is, without control characters.
    pub description: String,
}

/// Why a request is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// It begins with this instead of the magic number.
    Magic(u32),
    /// A version that nobody knows.
    Version(u32),
    /// A kind of request that nobody knows.
    Kind(u32),
    /// An address of this family instead of a unix socket's.
    Family(u16),
    /// Its path is not absolute.
    Path,
    /// It has this many octets, more than any request.
    Length(usize),
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(word) => write!(f, "no VDE request: it begins with {word:#010x}"),
            Self::Version(version) => write!(f, "version {version} of the request is not known"),
            Self::Kind(kind) => write!(f, "a request of kind {kind} is not known"),
            Self::Family(family) => write!(f, "its address is of family {family}, not of a unix socket"),
            Self::Path => write!(f, "the path of its datagram socket is not absolute"),
            Self::Length(octets) => write!(f, "a request of {octets} octets is too long"),
        }
    }
}

impl std::error::Error for BadRequest {}

/// Why a reply is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadReply;

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what answers there is no VDE switch")
    }
}

impl std::error::Error for BadReply {}

impl Request {
    /// Reads a request from what has come of it so far; `None` when that is not all of it. What is there
    /// behind the path is the description.
    ///
    /// # Errors
    ///
    /// As soon as it can't become a request.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, BadRequest> {
        let Some(magic) = word(bytes, 0) else { return Ok(None) };
        if magic != MAGIC {
            return Err(BadRequest::Magic(magic));
        }
        let Some(second) = word(bytes, 4) else { return Ok(None) };
        let (address, kind) = match second {
            VERSION => (V3_ADDRESS, word(bytes, 8)),
            NEW_CONTROL | NEW_PORT_0 => (V1_ADDRESS, Some(second)),
            _ => return Err(BadRequest::Version(second)),
        };
        if bytes.len() > address + REPLY_LEN + DESCRIPTION_MAX {
            return Err(BadRequest::Length(bytes.len()));
        }
        let Some((address, description)) =
            bytes.get(address..).and_then(|rest| rest.split_first_chunk::<REPLY_LEN>())
        else {
            return Ok(None);
        };
        let Some(kind) = kind else { return Ok(None) };
        let port = match (kind & 0xff, kind >> 8) {
            (NEW_CONTROL, 0) => None,
            (NEW_CONTROL, port) => Some(port),
            (NEW_PORT_0, _) => Some(0),
            (kind, _) => return Err(BadRequest::Kind(kind)),
        };
        let (family, path) = unix_address(address);
        if family != AF_UNIX {
            return Err(BadRequest::Family(family));
        }
        if !path.starts_with(b"/") {
            return Err(BadRequest::Path);
        }
        Ok(Some(Self { port, path: path.to_vec(), description: printable(description) }))
    }

    /// Writes a request of version 3; `None` when something of it has no room.
    pub fn write(&self) -> Option<Vec<u8>> {
        let kind = match self.port {
            None => NEW_CONTROL,
            Some(0) => NEW_PORT_0,
            Some(port) => port.checked_mul(0x100)?,
        };
        let address = reply(&self.path)?;
        if self.description.len() > DESCRIPTION_MAX {
            return None;
        }
        let words = [MAGIC, VERSION, kind].map(u32::to_ne_bytes);
        Some([words.as_flattened(), &address, self.description.as_bytes()].concat())
    }
}

/// Writes a reply with the path of a socket; `None` when it has no room.
pub fn reply(path: &[u8]) -> Option<[u8; REPLY_LEN]> {
    let mut reply = [0; REPLY_LEN];
    let (family, room) = reply.split_at_mut(FAMILY_LEN);
    family.copy_from_slice(&AF_UNIX.to_ne_bytes());
    // The system wants a zero behind it.
    room[..PATH_LEN - 1].get_mut(..path.len())?.copy_from_slice(path);
    Some(reply)
}

/// The path in a reply.
///
/// # Errors
///
/// When there is none, or it is not absolute.
pub fn parse_reply(reply: &[u8; REPLY_LEN]) -> Result<&[u8], BadReply> {
    match unix_address(reply) {
        (AF_UNIX, path) if path.starts_with(b"/") => Ok(path),
        _ => Err(BadReply),
    }
}

/// The family, and the path up to the first zero.
fn unix_address(address: &[u8; REPLY_LEN]) -> (u16, &[u8]) {
    let [low, high, path @ ..] = address;
    let length = path.iter().position(|&octet| octet == 0).unwrap_or(PATH_LEN);
    (u16::from_ne_bytes([*low, *high]), &path[..length])
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// What a client says of itself goes to logs and terminals.
fn printable(text: &[u8]) -> String {
    let end = text.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
    let text = String::from_utf8_lossy(&text[..end]);
    let is_harmful = |char: char| char.is_control() || is_invisible(char);
    text.chars().map(|char| if is_harmful(char) { '\u{fffd}' } else { char }).collect()
}

/// Can this make a terminal show something else than what is there?
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `vde_plug /run/user/1000/s1` sends on a host of little endian.
    fn seen(kind: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [0xfeed_face_u32, 3, kind] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(b"/run/user/1000/s1/.12693-00000");
        bytes.resize(122, 0);
        bytes.extend(b"vdeplug: user=root pid=12693");
        bytes
    }

    fn request(port: Option<u32>) -> Request {
        Request {
            port,
            path: b"/run/user/1000/s1/.12693-00000".to_vec(),
            description: "vdeplug: user=root pid=12693".to_owned(),
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn golden_bytes() {
        assert_eq!(seen(0x700)[..14], [0xce, 0xfa, 0xed, 0xfe, 3, 0, 0, 0, 0, 7, 0, 0, 1, 0]);
        assert_eq!(seen(0).len(), 150);
    }

    #[test]
    fn version_3_has_a_port() {
        for (kind, port) in
            [(0, None), (1, Some(0)), (0x500, Some(5)), (0xffff_ff00, Some(0xff_ffff)), (0x701, Some(0))]
        {
            assert_eq!(Request::parse(&seen(kind)), Ok(Some(request(port))));
        }
        for port in [None, Some(0), Some(5), Some(0xff_ffff)] {
            let written = request(port).write().unwrap();
            assert_eq!(Request::parse(&written), Ok(Some(request(port))));
        }
        assert_eq!(request(Some(0x100_0000)).write(), None);
        assert_eq!(Request::parse(&seen(2)), Err(BadRequest::Kind(2)));
    }

    #[test]
    fn version_1_has_none() {
        for (kind, port) in [(0_u32, None), (1, Some(0))] {
            let mut bytes = seen(0)[..4].to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0xaa; 6]);
            bytes.extend(&seen(0)[12..]);
            assert_eq!(Request::parse(&bytes), Ok(Some(request(port))));
            assert_eq!(Request::parse(&bytes[..123]), Ok(None));
            assert_eq!(Request::parse(&bytes[..124]).unwrap().unwrap().description, "");
        }
    }

    #[test]
    fn other_requests_are_refused_as_soon_as_they_are_known() {
        let mut bytes = seen(0);
        bytes[0] ^= 1;
        assert!(matches!(Request::parse(&bytes[..4]), Err(BadRequest::Magic(_))));
        for version in [2_u32, 4, u32::MAX] {
            let mut bytes = seen(0);
            bytes[4..8].copy_from_slice(&version.to_ne_bytes());
            assert_eq!(Request::parse(&bytes[..8]), Err(BadRequest::Version(version)));
        }
        let mut bytes = seen(0);
        bytes[12..14].copy_from_slice(&2_u16.to_ne_bytes());
        assert_eq!(Request::parse(&bytes), Err(BadRequest::Family(2)));
        for first in [0, b'.'] {
            let mut bytes = seen(0);
            bytes[14] = first;
            assert_eq!(Request::parse(&bytes), Err(BadRequest::Path));
        }
    }

    #[test]
    fn a_description_has_an_end_and_no_control_characters() {
        let mut bytes = seen(0)[..122].to_vec();
        bytes.extend(b"a\n\x1b[2Jb\xff");
        bytes.extend("\u{202e}\0\0".bytes());
        let description = Request::parse(&bytes).unwrap().unwrap().description;
        assert_eq!(description, "a\u{fffd}\u{fffd}[2Jb\u{fffd}\u{fffd}");
        bytes.resize(122, 0);
        bytes.resize(122 + DESCRIPTION_MAX, b'x');
        assert_eq!(Request::parse(&bytes).unwrap().unwrap().description.len(), DESCRIPTION_MAX);
        bytes.push(b'x');
        assert_eq!(Request::parse(&bytes), Err(BadRequest::Length(251)));
        let long = |octets| Request { description: "x".repeat(octets), ..request(None) };
        assert!(long(DESCRIPTION_MAX).write().is_some());
        assert!(long(DESCRIPTION_MAX + 1).write().is_none());
    }

    #[test]
    fn a_reply_holds_a_path_with_a_zero_behind_it() {
        for octets in [1, 107] {
            let path = vec![b'/'; octets];
            let reply = reply(&path).unwrap();
            assert_eq!((reply.len(), parse_reply(&reply)), (110, Ok(path.as_slice())));
        }
        assert_eq!(reply(&[b'/'; 108]), None);
        assert_eq!(parse_reply(&reply(b"").unwrap()), Err(BadReply));
        assert_eq!(parse_reply(&[0; 110]), Err(BadReply));
    }

    proptest! {
        #[test]
        fn a_request_that_comes_in_pieces_is_not_taken_early(cut in 0_usize..122) {
            prop_assert_eq!(Request::parse(&seen(0)[..cut]), Ok(None));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), is_alike in any::<bool>()) {
            let mut bytes = bytes;
            if is_alike && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&seen(0)[..8]);
            }
            if let Ok(Some(request)) = Request::parse(&bytes) {
                prop_assert!(request.path.starts_with(b"/") && !request.path.contains(&0));
                prop_assert!(!request.description.contains(char::is_control));
            }
        }
    }
}
