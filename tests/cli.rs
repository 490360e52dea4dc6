//! The command line against the real binary: what it accepts, what it says, how it starts and how it ends.

mod common;

mod cli {
    mod inherited;
    mod output;
    mod places;
    mod signals;
    mod sockets;
    mod start;
    mod usage;
}
