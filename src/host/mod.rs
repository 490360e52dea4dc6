//! The host's own network: how it is asked and changed.
//!
//! * [`netlink`] asks the kernel for links, addresses and routes, and changes them; [`sysctl`] does so for settings.
//! * `namespace` does either elsewhere.

pub mod netlink;

pub mod sysctl;

pub(crate) mod namespace;
