//! The corpora of the fuzz targets, replayed on a stable compiler.

#[path = "../hub-protocol/fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("hub-protocol/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    assert!(files.len() > 10, "{} has too few files", corpus.display());
    for file in files {
        let input = fs::read(&file).expect("a readable file");
        let outcome = std::panic::catch_unwind(|| body(&input));
        assert!(outcome.is_ok(), "{}: see the panic above", file.display());
    }
}

#[test]
fn stream() {
    replay("stream", bodies::stream);
}

#[test]
fn plug() {
    replay("plug", bodies::plug);
}

#[test]
fn bridge() {
    replay("bridge", bodies::bridge);
}

#[test]
fn l2tpv3() {
    replay("l2tpv3", bodies::l2tpv3);
}

#[test]
fn vde() {
    replay("vde", bodies::vde);
}

#[test]
fn offload() {
    replay("offload", bodies::offload);
}
