//! A small client of rtnetlink (RFC 3549), which asks and waits for the answer, in the network namespace of the thread
//! that opened it.

mod address;
mod link;
mod message;
mod route;
mod watch;

use std::io;

use hub_protocol::mac::Mac;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_APPEND, NLM_F_CAPPED, NLM_F_CREATE, NLM_F_DUMP,
    NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;

use message::Message;

pub use address::Address;
pub use link::{Layer, LinkRow, NewMacvtap};
pub use route::{Origin, Route};
pub use watch::Watch;

/// How often a list is asked for that changes while it is read.
const DUMP_TRIES: u32 = 20;

/// A conversation with the kernel.
///
/// All errors carry the kernel's error number and, where it gave one, its reason.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Netlink {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The link of this name.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn link(&mut self, name: &str) -> io::Result<Option<LinkRow>> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        match self.ask(&link::question(Some(name)), 0) {
            Ok(answers) => Ok(answers.iter().find_map(LinkRow::read)),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links, by their numbers.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn links(&mut self) -> io::Result<Vec<LinkRow>> {
        let answers = self.list(&link::question(None))?;
        Ok(answers.iter().filter_map(LinkRow::read).collect())
    }

    /// Brings a link up.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.tell(&link::with_flags(index, libc::IFF_UP), 0)
    }

    /// Lets a link hear every group, though nobody here has joined any.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_all_groups(&mut self, index: u32) -> io::Result<()> {
        self.tell(&link::with_flags(index, libc::IFF_ALLMULTI), 0)
    }

    /// Sets the longest packet of a link.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.tell(&link::of(libc::RTM_SETLINK, index).with(libc::IFLA_MTU, mtu.to_ne_bytes()), 0)
    }

    /// Makes a link a port of a bridge, or of none.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> io::Result<()> {
        let master = master.unwrap_or(0).to_ne_bytes();
        self.tell(&link::of(libc::RTM_SETLINK, index).with(libc::IFLA_MASTER, master), 0)
    }

    /// Sets the MAC address of a link.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> io::Result<()> {
        self.tell(&link::of(libc::RTM_SETLINK, index).with(libc::IFLA_ADDRESS, mac.0), 0)
    }

    /// Makes a bridge that forwards at once, without spanning tree. Without a MAC address of its own it has the lowest
    /// of its ports'.
    ///
    /// # Errors
    ///
    /// The kernel's; `EEXIST` when the name is taken.
    pub fn add_bridge(&mut self, name: &str, mac: Option<Mac>) -> io::Result<()> {
        self.tell(&link::bridge(name, mac), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a macvtap.
    ///
    /// # Errors
    ///
    /// The kernel's; `EEXIST` when the name is taken.
    pub fn add_macvtap(&mut self, new: &NewMacvtap<'_>) -> io::Result<()> {
        self.tell(&link::macvtap(new), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a link.
    ///
    /// # Errors
    ///
    /// The kernel's; `ENODEV` when it is gone.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        self.tell(&link::of(libc::RTM_DELLINK, index), 0)
    }

    /// The addresses of a link, or of all: the order in which they were added, but for IPv6, where it is the reverse.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn addresses(&mut self, index: Option<u32>) -> io::Result<Vec<Address>> {
        let answers = self.list(&Message::new(libc::RTM_GETADDR, &[0; 8]))?;
        let addresses = answers.into_iter().map(Address);
        Ok(addresses.filter(|address| index.is_none_or(|index| address.link() == index)).collect())
    }

    /// Gives a link an address.
    ///
    /// # Errors
    ///
    /// The kernel's; `EEXIST` when it has it.
    pub fn add_address(&mut self, address: &Address) -> io::Result<()> {
        self.tell(&as_kind(&address.0, libc::RTM_NEWADDR), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives an address that a link has other flags or lifetimes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn replace_address(&mut self, address: &Address) -> io::Result<()> {
        self.tell(&as_kind(&address.0, libc::RTM_NEWADDR), NLM_F_REPLACE)
    }

    /// Takes an address from its link.
    ///
    /// # Errors
    ///
    /// The kernel's; `EADDRNOTAVAIL` when it does not have it.
    pub fn delete_address(&mut self, address: &Address) -> io::Result<()> {
        self.tell(&as_kind(&address.0, libc::RTM_DELADDR), 0)
    }

    /// The routes through a link, or all, of all tables.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn routes(&mut self, index: Option<u32>) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut header = [0; 12];
            header[0] = u8::try_from(family).unwrap_or(0);
            let answers = self.list(&Message::new(libc::RTM_GETROUTE, &header))?;
            // A kernel without IPv6 takes the question for one about all families.
            let found = answers.into_iter().filter(|answer| answer.header.first() == header.first());
            let found = found.filter_map(Route::read);
            routes.extend(found.filter(|route| index.is_none_or(|index| route.leads_through(index))));
        }
        Ok(routes)
    }

    /// Adds a route, behind others of the same metric.
    ///
    /// # Errors
    ///
    /// The kernel's; `EEXIST` when it is there.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        self.tell(&as_kind(&route.0, libc::RTM_NEWROUTE), NLM_F_CREATE | NLM_F_APPEND)
    }

    /// Deletes a route.
    ///
    /// # Errors
    ///
    /// The kernel's; `ESRCH` when it is not there.
    pub fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        self.tell(&as_kind(&route.0, libc::RTM_DELROUTE), 0)
    }

    fn tell(&mut self, message: &Message, flags: u16) -> io::Result<()> {
        self.ask(message, flags).map(drop)
    }

    fn ask(&mut self, message: &Message, flags: u16) -> io::Result<Vec<Message>> {
        self.send(message, flags | NLM_F_ACK)?;
        self.receive().map(|(answers, _)| answers)
    }

    fn list(&mut self, message: &Message) -> io::Result<Vec<Message>> {
        for _ in 0..DUMP_TRIES {
            self.send(message, NLM_F_DUMP)?;
            if let (answers, true) = self.receive()? {
                return Ok(answers);
            }
        }
        Err(io::Error::other("the network changes too fast to be read; try again"))
    }

    fn send(&mut self, message: &Message, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let octets = framed(message, flags, self.sequence);
        retry(|| self.socket.send(&octets, 0)).map(drop)
    }

    /// All answers to the question just sent, and whether they fit together.
    fn receive(&mut self) -> io::Result<(Vec<Message>, bool)> {
        let mut answers = Vec::new();
        let mut is_consistent = true;
        loop {
            let (datagram, _) = retry(|| self.socket.recv_from_full())?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<Message>::deserialize(rest).map_err(io::Error::other)?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                is_consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) => {
                        return refusal(&error, message.header.flags).map(|()| (answers, is_consistent));
                    }
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok((answers, is_consistent)),
                    NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                    NetlinkPayload::Noop | _ => {}
                }
            }
        }
    }
}

/// A request as it is sent.
fn framed(message: &Message, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message.clone()));
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    octets
}

/// The number of the kernel's error, also where its reason is known.
pub fn errno(error: &io::Error) -> Option<i32> {
    let refusal = error.get_ref().and_then(|error| error.downcast_ref::<Refusal>());
    error.raw_os_error().or(refusal.map(|refusal| refusal.errno))
}

/// An error of the kernel that it gave a reason for.
#[derive(Debug)]
struct Refusal {
    errno: i32,
    reason: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", io::Error::from_raw_os_error(self.errno), self.reason)
    }
}

impl std::error::Error for Refusal {}

/// What the kernel's answer to a request says: done, or not, and why.
fn refusal(answer: &ErrorMessage, flags: u16) -> io::Result<()> {
    if answer.code.is_none() {
        return Ok(());
    }
    let plain = answer.to_io();
    let errno = -answer.raw_code();
    Err(match reason(&answer.header, flags) {
        Some(reason) => io::Error::new(plain.kind(), Refusal { errno, reason }),
        None => plain,
    })
}

/// The reason stands behind the request, which is given back with it, or its header at least.
fn reason(request: &[u8], flags: u16) -> Option<String> {
    const HEADER: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let length = match flags & NLM_F_CAPPED {
        0 => usize::try_from(message::number(request.get(..4)?)?).ok()?.next_multiple_of(4),
        _ => HEADER,
    };
    let attributes = message::attributes(request.get(length..)?).ok()?;
    message::value(&attributes, NLMSGERR_ATTR_MSG).map(message::text)
}

fn as_kind(message: &Message, kind: u16) -> Message {
    Message { kind, ..message.clone() }
}

fn retry<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
