//! The hub against real QEMU, cheapest first: bare backends, a network card without a guest, iPXE, Linux guests.
//! Skipped, visibly, where scripts/setup has not been run; `QHUB_REQUIRE=qemu` makes that a failure.

mod common;

mod qemu {
    mod announce;
    mod boot;
    mod datagrams;
    mod forms;
    mod guests;
    mod mixture;
    mod multicast;
    mod relay;
    mod restart;
    mod returns;
}
