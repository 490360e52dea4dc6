//! Peers that misbehave against the real binary: whatever one of them does, the hub lives, says what happened, gives
//! everything back, and two bystanders notice nothing.

mod common;

mod hostile {
    mod connections;
    mod datagrams;
    mod endings;
    mod files;
    mod frames;
    mod handed;
    mod host;
    mod inherited;
    mod joined;
    mod limits;
    mod peer;
    mod queues;
    mod sources;
    mod takeovers;
    mod vde {
        mod crowd;
        mod folder;
        mod joined;
        mod lab;
        mod moments;
        mod neighbours;
        mod refused;
        mod users;
    }
}
