//! `vde_switch`, the program: its console, its ways to start and to end, and what it does to those who do not behave.

mod common;

mod vde_switch {
    mod background;
    mod client;
    mod events;
    mod files;
    mod ports;
    mod socket;
    mod start;
    mod stdin;
    mod switch;
}
