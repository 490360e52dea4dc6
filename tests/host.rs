//! The hub in the host's own network: TAPs, bridges, packet sockets and macvtaps, with real network stacks behind them.
//! Skipped, visibly, without root; `QHUB_REQUIRE=root` makes that a failure.

mod common;

mod host {
    mod guest;
    mod helper;
    mod inherited;
    mod life;
    mod macvtap;
    mod offload;
    mod packet;
    mod readme;
    mod refusals;
    mod tags;
    mod tap;
    mod user;
}
