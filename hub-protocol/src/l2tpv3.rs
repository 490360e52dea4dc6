//! The header of L2TPv3 data messages over UDP (RFC 3931 4.1.2.1), as QEMU `net/l2tpv3.c` writes it:
//!
//! ```text
//! u16 flags and version 3 | u16 0 | u32 session | [u32 or u64 cookie] | [u32 counter] | frame
//! ```
//!
//! All of it is big-endian. QEMU sends and skips the counter, and so does this.

use std::fmt;

/// The most octets of a header.
pub const HEADER_MAX: usize = 20;

/// Flags and version of a data message; a control message has [`CONTROL`].
const DATA: [u8; 4] = [0, 3, 0, 0];
const CONTROL: u8 = 0x80;
const VERSION: u8 = 0x0f;

/// What both ends have agreed upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L2tpv3 {
    /// The session of what we send.
    pub tx_session: u32,
    /// The session of what we take; the same unless it is said.
    pub rx_session: Option<u32>,
    /// The cookie of what we send.
    pub tx_cookie: Option<u64>,
    /// The cookie of what we take.
    pub rx_cookie: Option<u64>,
    /// Do cookies have 64 bits, rather than 32?
    pub has_long_cookies: bool,
    /// Is there a counter?
    pub has_counter: bool,
}

/// Why no header can be made of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsound {
    /// There is a cookie for one direction only.
    OneCookie,
    /// A cookie of this value has no room.
    LongCookie(u64),
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneCookie => write!(f, "cookies go both ways; write txcookie= and rxcookie="),
            Self::LongCookie(cookie) => {
                write!(f, "cookie {cookie:#x} is longer than 32 bits; add cookie64=on")
            }
        }
    }
}

impl std::error::Error for Unsound {}

/// Why a datagram is not from our peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// It is too short, of another version, or a control message.
    Malformed,
    /// It belongs to another session.
    WrongSession,
    /// It has another cookie.
    WrongCookie,
}

impl L2tpv3 {
    /// Can a header be made of this?
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(&self) -> Result<(), Unsound> {
        if self.tx_cookie.is_some() != self.rx_cookie.is_some() {
            return Err(Unsound::OneCookie);
        }
        let too_long = |&cookie: &u64| !self.has_long_cookies && u32::try_from(cookie).is_err();
        match self.tx_cookie.into_iter().chain(self.rx_cookie).find(too_long) {
            Some(cookie) => Err(Unsound::LongCookie(cookie)),
            None => Ok(()),
        }
    }

    /// Octets of a header, the same both ways.
    pub fn header_len(&self) -> usize {
        DATA.len() + 4 + self.cookie_len() + if self.has_counter { 4 } else { 0 }
    }

    fn cookie_len(&self) -> usize {
        match (self.tx_cookie, self.has_long_cookies) {
            (None, _) => 0,
            (Some(_), false) => 4,
            (Some(_), true) => 8,
        }
    }

    /// Writes the header of the datagram number `counter` to the start of `header`.
    pub fn write(&self, counter: u32, header: &mut [u8; HEADER_MAX]) {
        header[..4].copy_from_slice(&DATA);
        header[4..8].copy_from_slice(&self.tx_session.to_be_bytes());
        let end = 8 + self.cookie_len();
        if let Some(cookie) = self.tx_cookie {
            header[8..end].copy_from_slice(&cookie.to_be_bytes()[8 - self.cookie_len()..]);
        }
        if self.has_counter {
            header[end..end + 4].copy_from_slice(&counter.to_be_bytes());
        }
    }

    /// Is this the header of a datagram for us? `header` is what came in the place of one.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check_header(&self, header: &[u8]) -> Result<(), BadHeader> {
        let (Some((first, rest)), true) =
            (header.split_first_chunk::<4>(), header.len() >= self.header_len())
        else {
            return Err(BadHeader::Malformed);
        };
        if first[0] & CONTROL != 0 || first[1] & VERSION != DATA[1] {
            return Err(BadHeader::Malformed);
        }
        if !rest.starts_with(&self.rx_session.unwrap_or(self.tx_session).to_be_bytes()) {
            return Err(BadHeader::WrongSession);
        }
        let cookie = self.rx_cookie.unwrap_or_default().to_be_bytes();
        if !rest[4..].starts_with(&cookie[8 - self.cookie_len()..]) {
            return Err(BadHeader::WrongCookie);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: L2tpv3 = L2tpv3 {
        tx_session: 0xaabb_ccdd,
        rx_session: None,
        tx_cookie: None,
        rx_cookie: None,
        has_long_cookies: false,
        has_counter: false,
    };

    fn written(framing: &L2tpv3) -> Vec<u8> {
        let mut header = [0xee; HEADER_MAX];
        framing.write(7, &mut header);
        let (header, behind) = header.split_at(framing.header_len());
        assert!(behind.iter().all(|&octet| octet == 0xee));
        header.to_vec()
    }

    #[test]
    fn headers_are_those_of_qemu() {
        let short = L2tpv3 { tx_cookie: Some(0x1122_3344), rx_cookie: Some(0x5566_7788), ..PLAIN };
        let long = L2tpv3 { has_long_cookies: true, ..short };
        let all = L2tpv3 { has_counter: true, ..long };
        let start = "00030000aabbccdd";
        for (framing, rest) in [
            (PLAIN, ""),
            (L2tpv3 { has_counter: true, ..PLAIN }, "00000007"),
            (short, "11223344"),
            (long, "0000000011223344"),
            (all, "000000001122334400000007"),
        ] {
            let hex: String = written(&framing).iter().map(|octet| format!("{octet:02x}")).collect();
            assert_eq!(hex, format!("{start}{rest}"));
            assert_eq!(framing.check(), Ok(()));
            assert!(framing.header_len() <= HEADER_MAX);
        }
    }

    #[test]
    fn what_one_end_writes_the_other_takes() {
        for has_long_cookies in [false, true] {
            for has_counter in [false, true] {
                let one = L2tpv3 {
                    tx_session: 1,
                    rx_session: Some(2),
                    tx_cookie: Some(3),
                    rx_cookie: Some(4),
                    has_long_cookies,
                    has_counter,
                };
                let other = L2tpv3 {
                    tx_session: 2,
                    rx_session: Some(1),
                    tx_cookie: Some(4),
                    rx_cookie: Some(3),
                    ..one
                };
                let header = written(&one);
                assert_eq!(other.check_header(&header), Ok(()));
                assert_eq!(one.check_header(&header), Err(BadHeader::WrongSession));
                let stranger = L2tpv3 { rx_cookie: Some(5), ..other };
                assert_eq!(stranger.check_header(&header), Err(BadHeader::WrongCookie));
                for len in 0..header.len() {
                    assert_eq!(other.check_header(&header[..len]), Err(BadHeader::Malformed), "{len} octets");
                }
            }
        }
    }

    #[test]
    fn other_messages_are_not_data() {
        let header = written(&PLAIN);
        for (first, second, is_data) in
            [(0, 3, true), (0x80, 3, false), (0, 2, false), (0, 4, false), (0x40, 0xf3, true)]
        {
            let mut other = header.clone();
            (other[0], other[1]) = (first, second);
            let expected = if is_data { Ok(()) } else { Err(BadHeader::Malformed) };
            assert_eq!(PLAIN.check_header(&other), expected, "{first:#x} {second:#x}");
        }
    }

    #[test]
    fn cookies_go_both_ways_and_fit() {
        let one = L2tpv3 { tx_cookie: Some(1), ..PLAIN };
        assert_eq!(one.check(), Err(Unsound::OneCookie));
        let fitting = L2tpv3 { rx_cookie: Some(u64::from(u32::MAX)), ..one };
        assert_eq!(fitting.check(), Ok(()));
        let long = L2tpv3 { rx_cookie: Some(1 << 32), ..one };
        assert_eq!(long.check(), Err(Unsound::LongCookie(1 << 32)));
        assert_eq!(L2tpv3 { has_long_cookies: true, ..long }.check(), Ok(()));
    }
}
