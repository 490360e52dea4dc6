//! The host's own network, in namespaces that the tests make: nothing here touches the machine's. Skipped, visibly,
//! without root; `QHUB_REQUIRE=root` makes that a failure.

mod common;

mod bridges {
    mod changed;
    mod interrupted;
    mod netlink;
    mod private;
    mod public;
    mod readme;
    mod refused;
}
