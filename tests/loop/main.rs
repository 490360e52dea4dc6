//! The hub on real sockets: the loop is turned by hand, time stands still unless a test moves it,
//! and nothing sleeps.
//!
//! A unix socket hands over at once what is written to it, so what the hub can do it does before
//! [`Net::settle`] returns. TCP may take a moment, which [`Net::until`] waits for in the poll.

mod arrivals;
mod bundles;
mod card;
mod clients;
mod datagrams;
mod drains;
mod endings;
mod far;
mod held;
mod idle;
mod net;
mod passage;
mod places;
mod queues;
mod remote;
#[path = "../common/require.rs"]
mod require;
mod troubles;
mod vde {
    mod endings;
    mod frames;
    mod joining;
    mod ports;
    mod requests;
    mod switch;
    mod waiting;
}
#[path = "../common/vde_client.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod vde_client;
mod wire;
