//! The hub in virtual time: hosts on links with exact buffers and rates, nothing sleeps, and a run
//! is the same every time.

mod flow;
mod random;
mod world;
