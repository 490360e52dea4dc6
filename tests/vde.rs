//! The hub against real VDE: plugs, cables, switches, consoles, and QEMU's `-netdev vde`.
//! Skipped, visibly, where scripts/setup has not been run; `QHUB_REQUIRE=vde` makes that a failure.

mod common;

mod vde {
    mod cables;
    mod console;
    mod dropin;
    mod groups;
    mod guests;
    mod plugs;
    mod qemu;
    mod readme;
    mod shared;
    mod switches;
}
