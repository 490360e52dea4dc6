//! Frames as a receiver without offload checks them: not too long, and with right checksums.

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// What a frame was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    Other,
}

/// Sees that a frame is what a card of 1500 octets would have sent: panics if not.
pub(crate) fn checked(frame: &[u8]) -> Kind {
    let (at, ethertype) = payload(frame);
    assert!(frame.len() <= at + 1500, "a frame of {} octets", frame.len());
    let packet = &frame[at..];
    let (addresses, protocol, body) = match ethertype {
        IPV4 => {
            let header_len = usize::from(packet[0] & 0xf) * 4;
            assert_eq!(sum(&packet[..header_len]), 0xffff, "IP checksum of {frame:02x?}");
            assert_eq!(word(packet, 6) & 0x3fff, 0, "a fragment");
            (&packet[12..20], packet[9], &packet[header_len..word(packet, 2).into()])
        }
        IPV6 => (&packet[8..40], packet[6], &packet[40..40 + usize::from(word(packet, 4))]),
        _ => return Kind::Other,
    };
    let kind = match protocol {
        6 => Kind::Tcp,
        17 => Kind::Udp,
        _ => return Kind::Other,
    };
    let length = u16::try_from(body.len()).expect("it is short");
    let pseudo = [addresses, &[0, protocol], &length.to_be_bytes()].concat();
    assert_eq!(sum(&[&pseudo, body].concat()), 0xffff, "checksum of {frame:02x?}");
    kind
}

/// Where the payload begins, behind all VLAN tags, and its type.
fn payload(frame: &[u8]) -> (usize, u16) {
    let mut at = 14;
    while matches!(word(frame, at - 2), 0x8100 | 0x88a8) {
        at += 4;
    }
    (at, word(frame, at - 2))
}

fn word(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

/// RFC 1071, as it is written: so what is checked is not checked with itself.
pub(crate) fn sum(octets: &[u8]) -> u16 {
    let words =
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()));
    let mut sum: u32 = words.sum();
    while sum > u32::from(u16::MAX) {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).expect("it was folded")
}

/// How many of `frames` are of each kind, TCP first.
pub(crate) fn all_checked<'f>(frames: impl IntoIterator<Item = &'f Vec<u8>>) -> [usize; 2] {
    frames.into_iter().fold([0; 2], |[tcp, udp], frame| match checked(frame) {
        Kind::Tcp => [tcp + 1, udp],
        Kind::Udp => [tcp, udp + 1],
        Kind::Other => [tcp, udp],
    })
}
