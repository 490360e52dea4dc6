//! What the tests against real processes share. Nothing here sleeps blindly or waits without a limit, and every process
//! that is started dies with the thread that started it.
#![allow(dead_code, reason = "each test crate uses its own part of this")]

pub(crate) mod checked;
pub(crate) mod daemon;
pub(crate) mod guest;
pub(crate) mod hub;
pub(crate) mod lab;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod qemu;
pub(crate) mod refusal;
pub(crate) mod require;
pub(crate) mod sniffer;
pub(crate) mod stack;
pub(crate) mod tap;
pub(crate) mod vde;
pub(crate) mod vde_client;
pub(crate) mod wait;
pub(crate) mod wire;
