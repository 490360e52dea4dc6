//! qhub joins virtual machines into one Ethernet segment: an unprivileged hub or learning switch
//! for what QEMU and VDE speak, and for the host's own network.
//!
//! # A frame's journey
//!
//! One thread turns one loop ([`hub`]). A *turn* takes what the poll told, then serves the ready
//! *ports* one batch each:
//!
//! ```text
//! socket -> link.receive -> FrameBatch -> Bridge::relay -> Verdict -> port.send -> socket
//!                           (the arena)                                 | when it is full
//!                                                                       v
//!                                                                  EgressQueue -> port.flush
//! ```
//!
//! * A [`link`] speaks one transport to one peer. It never blocks and hands over whole frames only.
//!   New peers come in by a *door*: a listener, a dialler, the folder of a VDE switch, or a datagram socket
//!   that anybody sends to.
//!   What arrives at the last takes the same way, as if the port of its sender had received it.
//! * The [`batch`] is one arena in the layout of a QEMU stream; runs of frames that leave together
//!   go out of it in one write, without a copy.
//! * What a host leaves to its card to cut up stays in one piece, a *bundle*, from interface to interface,
//!   and is cut up once for everybody else. A queue holds no bundles.
//! * The [`bridge`] is pure: a frame and the time come in, a verdict goes out.
//! * A [`port`] is a link with what is known of its readiness, an egress queue, and counters.
//! * [`hub`] is where they meet. It alone reads the clock and hands the time down.
//!
//! # Flow control
//!
//! An ingress port is not read while everything it was last unicast to is congested; QEMU then
//! stops its guest, and a bulk flow loses nothing. How long others may wait for a slow port is a
//! budget of that port (`port::pause`): a guest that stops costs the others 55 ms once. Every queue
//! is bounded, every drop has a [reason](discard) and a counter.
//!
//! # The host's network
//!
//! [`host`] asks the kernel for links, addresses and routes, and changes them: for ports that are
//! interfaces of this host, and for [`kernel_bridge`], which makes and unmakes the kernel's own bridges.
//! No frame passes either.
//!
//! # Plugs
//!
//! [`plug`] is a hub of two ports, of which one is a pipe: a cable to another segment.
//!
//! The modules below stand in the order of their dependencies.

pub mod discard;

pub mod bridge;

pub mod batch;

pub mod config;

pub mod host;

pub mod link;

pub mod port;

pub mod hub;

pub mod instance;

pub mod kernel_bridge;

pub mod cli;
pub mod logging;
pub mod privilege;
pub mod signals;
pub mod welcome;

pub mod turn;

pub mod daemon;
pub mod plug;

pub mod vde_switch;
