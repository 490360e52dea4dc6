//! `qhub plug` as its own process, on real pipes and sockets.

mod common;

mod plug {
    mod bulk;
    mod cable;
    mod ends;
    mod peer;
    mod refused;
    mod shared;
    mod slow;
}
