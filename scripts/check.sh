#!/usr/bin/env bash
# The one gate, and the README's test command: every commit passes it.
# As root it first installs what the tests need; without, the tests say what they skip.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

step scripts/setup
step cargo fmt --all --check
step cargo clippy --workspace --all-targets --quiet -- -D warnings
RUSTDOCFLAGS='-D warnings' step cargo doc --workspace --no-deps --document-private-items --quiet
step cargo test --workspace
