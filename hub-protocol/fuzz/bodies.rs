//! What the fuzz targets do with their input. `tests/corpus.rs` does the same with the corpora.

use std::time::Duration;

use hub_protocol::checksum::Sum;
use hub_protocol::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use hub_protocol::gro::{self, Coalesced};
use hub_protocol::gso::Gso;
use hub_protocol::l2tpv3::{self, L2tpv3};
use hub_protocol::plug;
use hub_protocol::stream::{self, BadLength, Cut, MAX_FRAME, PREFIX_LEN};
use hub_protocol::vde::{self, REPLY_LEN, REQUEST_MAX, Request};
use hub_protocol::vnet::{ChecksumState, VnetHeader, finish_checksum};
use qhub::batch::{ARENA, FrameBatch};
use qhub::bridge::{Bridge, BridgeConfig, MAX_PORTS, Mode, PortId, PortSet, Verdict};

/// The decoder gives the same frames, the same error and the same rest for any chunking.
///
/// Input: the length of the first chunk, how many kibioctets are to be added to the stream (so that
/// a small file can hold a long frame), and the stream.
pub(crate) fn stream(input: &[u8]) {
    let [step, padding, head @ ..] = input else { return };
    let mut bytes = head.to_vec();
    bytes.resize(head.len() + usize::from(*padding) * 1024, 0xff);
    let (expected, fault, rest) = decode(&bytes);

    let (mut batch, mut tail) = (FrameBatch::default(), Vec::new());
    let (mut got, mut waiting) = (Vec::new(), &bytes[..]);
    let mut found = None;
    // Chunks grow, so that a long input needs few of them.
    let mut chunk = usize::from(*step) + 1;
    while !waiting.is_empty() && found.is_none() {
        batch.clear(ARENA);
        let read = |room: &mut [u8]| {
            let taken = chunk.min(waiting.len()).min(room.len());
            room[..taken].copy_from_slice(&waiting[..taken]);
            Ok(taken)
        };
        let filled = batch.fill_stream(&mut tail, read).expect("it can be read");
        assert!(filled.taken > 0 && filled.taken <= filled.offered);
        waiting = &waiting[filled.taken..];
        got.extend(stream::frames(batch.records()).map(<[u8]>::to_vec));
        check_cut(batch.records(), chunk);
        found = filled.fault;
        chunk += chunk / 4;
    }
    assert_eq!(found, fault);
    assert!(got == expected, "{} frames instead of {}", got.len(), expected.len());
    if fault.is_none() {
        assert!(tail == rest);
    }
}

/// The plainest decoder: frames, then what is wrong with the next, or what there is of it.
fn decode(mut bytes: &[u8]) -> (Vec<Vec<u8>>, Option<BadLength>, &[u8]) {
    let mut frames = Vec::new();
    while let [a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]);
        if length > 69_632 {
            return (frames, Some(BadLength(length)), bytes);
        }
        let Some((frame, rest)) = usize::try_from(length).ok().and_then(|at| rest.split_at_checked(at))
        else {
            break;
        };
        frames.push(frame.to_vec());
        bytes = rest;
    }
    (frames, None, bytes)
}

/// vde_plug's decoder gives the same frames, the same error and the same rest for any chunking, and what it
/// gives is written with its length.
///
/// Input: as for [`stream`], but that the length of every chunk is that of the first one.
pub(crate) fn plug(input: &[u8]) {
    let [step, padding, head @ ..] = input else { return };
    let mut bytes = head.to_vec();
    bytes.resize(head.len() + usize::from(*padding) * 1024, 0x20);
    let (expected, end) = decode_plug(&bytes);

    let (mut decoder, mut got, mut fault) = (plug::Decoder::default(), Vec::new(), None);
    for chunk in bytes.chunks(usize::from(*step) + 1) {
        let room = decoder.room();
        assert!(room.len() >= plug::ROOM);
        room[..chunk.len()].copy_from_slice(chunk);
        fault = decoder.advance(chunk.len(), |frame| got.push(frame.to_vec())).err();
        if fault.is_some() {
            break;
        }
    }
    assert!(got == expected, "{} frames instead of {}", got.len(), expected.len());
    match end {
        Ok(rest) => assert!(fault.is_none() && decoder.is_at_boundary() == rest.is_empty()),
        Err(length) => assert_eq!(fault, Some(plug::BadLength(length))),
    }
    for frame in got {
        let mut record = Vec::new();
        assert!(plug::append(&mut record, &frame));
        let length = u16::from_be_bytes([record[0], record[1]]);
        assert!(length > 0 && usize::from(length) == frame.len() && record[2..] == frame);
    }
}

/// The plainest decoder: frames, and the impossible length or the rest behind them.
fn decode_plug(mut bytes: &[u8]) -> (Vec<Vec<u8>>, Result<&[u8], u16>) {
    let mut frames = Vec::new();
    while let [a, b, rest @ ..] = bytes {
        let length = u16::from_be_bytes([*a, *b]);
        if length > 9_234 {
            return (frames, Err(length));
        }
        let Some((frame, rest)) = rest.split_at_checked(length.into()) else { break };
        if length > 0 {
            frames.push(frame.to_vec());
        }
        bytes = rest;
    }
    (frames, Ok(bytes))
}

/// Both neighbours of a cut lie between two records, with at most one record between them.
fn check_cut(records: &[u8], limit: usize) {
    let Cut { whole: below, frames, end: above } = stream::cut(records, limit);
    assert_eq!(stream::count(&records[..below]), frames);
    assert!(below <= limit && below <= above && above <= records.len());
    assert!(above - below <= PREFIX_LEN + MAX_FRAME);
    assert!(above >= limit.min(records.len()));
    assert_eq!(stream::scan(&records[..below]).whole, below);
    assert_eq!(stream::scan(&records[..above]).whole, above);
}

/// The bridge never panics, never sends a frame back or to a port that is not there, and never
/// remembers more than it may.
///
/// Input: the mode (lowest bit) and the size of the table, then steps. A step is an octet for the
/// port (its highest bit: to a bus) and one that says what happens: 0 attach, 1 detach, 2 a sweep after some seconds, else a
/// frame of so many octets, which follow, after as many milliseconds.
pub(crate) fn bridge(input: &[u8]) {
    let [setup, steps @ ..] = input else { return };
    let mut steps = steps;
    let mode = if setup & 1 == 0 { Mode::Hub } else { Mode::Switch };
    let fdb_max = usize::from(setup >> 1);
    let mut bridge = Bridge::new(BridgeConfig { mode, ageing: Duration::from_secs(1), fdb_max });
    let (mut ports, mut now) = (PortSet::default(), qhub::hub::now());
    while let [index, action, rest @ ..] = steps {
        steps = rest;
        // Few ports, spread over the whole range.
        let port = PortId::new(usize::from(index % 8) * (MAX_PORTS - 1) / 7).expect("within the range");
        match action {
            0 => {
                if index & 0x80 == 0 {
                    bridge.attach(port)
                } else {
                    bridge.attach_bus(port)
                }
                ports.insert(port);
            }
            1 => {
                bridge.detach(port);
                ports.remove(port);
            }
            2 => {
                now += Duration::from_millis(u64::from(*index) * 20);
                bridge.sweep(now);
            }
            length => {
                now += Duration::from_millis(u64::from(*length));
                let (frame, rest) = rest.split_at(rest.len().min(usize::from(*length) - 3));
                steps = rest;
                if ports.contains(port) {
                    check_verdict(bridge.relay(port, frame, now), port, &ports);
                }
            }
        }
        let rows = bridge.fdb_rows(now);
        assert!(rows.len() <= fdb_max.max(1));
        for row in rows {
            assert!(ports.contains(row.port), "it remembers a port that is gone");
            assert!(row.mac.is_station() && row.age <= Duration::from_secs(1));
        }
    }
}

/// Any octets in the place of an L2TPv3 header: the check never panics, and what it lets pass is what
/// the peer writes, but for flags and the counter.
///
/// Input: a bit each for cookies, long cookies and the counter, and the octets.
pub(crate) fn l2tpv3(input: &[u8]) {
    let [options, octets @ ..] = input else { return };
    let cookie = (options & 1 != 0).then_some(0x0102_0304);
    let framing = L2tpv3 {
        tx_session: 7,
        rx_session: Some(9),
        tx_cookie: cookie,
        rx_cookie: cookie,
        has_long_cookies: options & 2 != 0,
        has_counter: options & 4 != 0,
    };
    framing.check().expect("both cookies fit");
    let mirror = L2tpv3 { tx_session: 9, rx_session: Some(7), ..framing };
    let mut header = [0; l2tpv3::HEADER_MAX];
    mirror.write(u32::from(*options), &mut header);
    let len = framing.header_len();
    assert_eq!(framing.check_header(&header[..len]), Ok(()));
    if framing.check_header(octets).is_ok() {
        let end = if framing.has_counter { len - 4 } else { len };
        assert_eq!(octets[4..end], header[4..end]);
        assert!(octets.len() >= len && octets[0] < 0x80 && octets[1] & 0x0f == 3);
    }
}

/// What a VDE client or switch may say: it is never misunderstood for coming in pieces, what is written is read
/// again, and nothing dangerous gets into paths and descriptions.
///
/// Input: the octets of a request, or of a reply.
pub(crate) fn vde(input: &[u8]) {
    // As a switch hears it, one octet after the other.
    let known = (0..=input.len()).map(|end| (end, Request::parse(&input[..end])));
    let first = known.into_iter().find(|(_, known)| !matches!(known, Ok(None)));
    match (&first, Request::parse(input)) {
        // Of what comes at once, more may be the description, up to the bound.
        (Some((end, Ok(Some(first)))), Ok(Some(whole))) => {
            assert!(first.description.is_empty() && (first.port, &first.path) == (whole.port, &whole.path));
            assert!((REPLY_LEN + 12..=REQUEST_MAX).contains(end) && input.len() <= REQUEST_MAX);
            check_request(&whole, &input[*end..]);
        }
        (Some((_, Ok(Some(_)))), whole) => {
            whole.expect_err("it is too long");
            assert!(input.len() > REQUEST_MAX - 2);
        }
        // It may be too long as well.
        (Some((_, Err(_))), whole) => drop(whole.expect_err("it can become no request")),
        (None, whole) => assert_eq!(whole, Ok(None)),
        (Some((_, Ok(None))), _) => unreachable!("it was looked for"),
    }

    let Some(reply) = input.first_chunk::<REPLY_LEN>() else { return };
    if let Ok(path) = vde::parse_reply(reply) {
        assert!(path.starts_with(b"/") && !path.contains(&0));
        match vde::reply(path) {
            Some(again) => assert_eq!(vde::parse_reply(&again), Ok(path)),
            None => assert_eq!(path.len(), REPLY_LEN - 2),
        }
    }
}

fn check_request(request: &Request, description: &[u8]) {
    assert!(request.path.starts_with(b"/") && !request.path.contains(&0));
    assert!(request.port.is_none_or(|port| port < 1 << 24));
    assert!(!request.description.contains(char::is_control));
    assert!(request.description.chars().count() <= description.len());
    match request.write() {
        Some(written) => assert_eq!(Request::parse(&written), Ok(Some(request.clone()))),
        // What was no text has become longer.
        None => {
            assert!(request.path.len() == REPLY_LEN - 2 || request.description.len() > vde::DESCRIPTION_MAX)
        }
    }
}

/// Whatever a host says of its frames, nothing panics; a bundle is cut into all of its payload, and
/// frames that were joined are cut again into what they were.
///
/// Input: an octet (its lowest bit: make the checksums of records right first), a vnet header, and its
/// frame, which is taken for records as well.
pub(crate) fn offload(input: &[u8]) {
    let Some((&options, rest)) = input.split_first() else { return };
    let Some((vnet, octets)) = rest.split_first_chunk() else { return };
    let header = VnetHeader::parse(vnet);
    assert_eq!(VnetHeader::parse(&header.write()), header);
    let mut frame = octets.to_vec();
    if finish_checksum(&mut frame, &header).is_err() {
        assert!(frame == octets);
    }
    if let Ok(gso) = Gso::parse(octets, &header) {
        check_segments(&gso, octets);
    }

    let mut records = octets[..stream::scan(octets).whole].to_vec();
    let mut at = 0;
    while let Some(len) = stream::record_len(&records[at..]) {
        if options & 1 != 0 {
            repair(&mut records[at + PREFIX_LEN..at + len]);
        }
        at += len;
    }
    at = 0;
    while let Some(len) = stream::record_len(&records[at..]) {
        at += match gro::coalesce(&records[at..]) {
            Some(joined) => check_joined(&joined, &records[at..]),
            None => len,
        };
    }
}

fn check_segments(gso: &Gso, bundle: &[u8]) {
    assert_eq!(Gso::parse(bundle, &gso.header()), Ok(*gso));
    let (count, octets) = (gso.segments(bundle), gso.octets(bundle));
    // A caller bounds it, and so does this.
    if octets > 1 << 20 {
        return;
    }
    let mut records = Vec::new();
    gso.segment(bundle, &mut records);
    assert_eq!((stream::count(&records), records.len()), (count, octets + count * PREFIX_LEN));
    let header_len = usize::from(gso.header().hdr_len);
    let mut payload = &bundle[header_len..];
    for segment in stream::frames(&records) {
        let (piece, rest) = payload.split_at(segment.len() - header_len);
        assert!(segment.len() <= gso.longest(bundle) && segment[header_len..] == *piece);
        payload = rest;
    }
    assert!(payload.is_empty());
}

/// Returns the octets of what was joined.
fn check_joined(joined: &Coalesced, records: &[u8]) -> usize {
    let records = &records[..joined.octets()];
    assert_eq!(stream::count(records), joined.frames());
    assert!((2..=gro::FRAMES_MAX).contains(&joined.frames()));
    let mut bundle = joined.header().to_vec();
    bundle.extend(joined.payloads(records).flatten());
    let parsed = Gso::parse(&bundle, &joined.vnet()).expect("it is a bundle");
    assert_eq!(parsed.header(), joined.vnet());
    let mut again = Vec::new();
    joined.gso().segment(&bundle, &mut again);
    assert!(again == records);
    records.len()
}

/// Makes the checksums right that a mutation of plain TCP has spoilt; else nothing would be joined.
fn repair(frame: &mut [u8]) {
    let Some((network, ethertype)) = ethernet::payload(frame) else { return };
    let (transport, addresses) = match ethertype {
        ETHERTYPE_IPV4 => (network + 20, network + 12..network + 20),
        ETHERTYPE_IPV6 => (network + 40, network + 8..network + 40),
        _ => return,
    };
    if frame.len() < transport + 20 {
        return;
    }
    let length = u32::try_from(frame.len() - transport).expect("a frame is short");
    let pseudo = Sum::pseudo_header(&frame[addresses], 6).with_u32(length).fold();
    frame[transport + 16..transport + 18].copy_from_slice(&pseudo.to_be_bytes());
    let start = u16::try_from(transport).unwrap_or(u16::MAX);
    let needed = VnetHeader {
        checksum: ChecksumState::Needed,
        csum_start: start,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    let _ = finish_checksum(frame, &needed);
    if ethertype == ETHERTYPE_IPV4 {
        frame[network + 10..network + 12].fill(0);
        let checksum = Sum::default().with(&frame[network..transport]).checksum();
        frame[network + 10..network + 12].copy_from_slice(&checksum.to_be_bytes());
    }
}

fn check_verdict(verdict: Verdict, ingress: PortId, ports: &PortSet) {
    match verdict {
        Verdict::Forward(egress) => assert!(egress != ingress && ports.contains(egress)),
        Verdict::Flood(flood) => {
            assert!(!flood.ports.is_empty() && !flood.ports.contains(ingress));
            assert!(flood.ports.iter().all(|egress| ports.contains(egress)));
            assert!(flood.awaited.is_none_or(|egress| flood.ports.contains(egress)));
        }
        Verdict::Discard(_) => {}
    }
}
