//! `qhub bridge` when a system call fails, or it is killed at one: each in turn.

use super::public::layer_3;
use crate::common::lab::{Lab, have_labs, text};

const PRIVATE: [&str; 7] = ["bridge", "up", "br0", "--addr", "10.55.0.1/24", "--addr", "fd55::1/64"];
const PUBLIC: [&str; 6] = ["bridge", "up", "br0", "--take", "eth0", "--yes"];
const DOWN: [&str; 4] = ["bridge", "down", "br0", "--yes"];

/// The calls that change something, or ask for it.
const CALLS: [&str; 6] = ["sendto", "write", "rename", "fsync", "clone3", "unlink"];

/// More than any of them is called.
const MANY: usize = 200;

fn has_ended_well(output: &std::process::Output) -> bool {
    output.status.code() == Some(0)
}

#[test]
fn a_step_that_fails_leaves_all_as_before() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    let mut failed = 0;
    for up in [&PRIVATE[..], &PUBLIC] {
        for number in 1..MANY {
            let output = lab.injected(&format!("sendto:error=EPERM:when={number}"), up);
            let said = text(&output.stderr);
            if has_ended_well(&output) {
                lab.done(&DOWN);
                lab.is_again(&before, "after all");
                break;
            }
            failed += 1;
            assert_eq!(output.status.code(), Some(1), "{said}");
            let why = format!("{up:?}: message {number} failed: {said}");
            assert!(said.contains("Operation not permitted"), "{why}");
            lab.is_again(&before, &why);
            assert!(lab.done(&["bridge", "show"]).starts_with("no bridges"), "{why}");
        }
    }
    assert!(failed > 50, "{failed}");
}

#[test]
fn a_setting_or_a_rule_that_is_refused_leaves_all_as_before() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    for call in ["write", "clone3", "fsync", "rename"] {
        for number in 1..MANY {
            let output = lab.injected(&format!("{call}:error=EACCES:when={number}"), &PRIVATE);
            let said = text(&output.stderr);
            if has_ended_well(&output) {
                // It was what it prints, or after that.
                assert!(
                    lab.done(&["bridge", "show"]).contains("NAT: 10.55.0.0/24, fd55::/64"),
                    "{call} {number}"
                );
                lab.done(&DOWN);
                break;
            }
            if lab.done(&["bridge", "show"]).contains("half up") {
                // It could not write that all was well.
                lab.done(&DOWN);
            }
            lab.is_again(&before, &format!("{call} {number}: {said}"));
        }
        lab.is_again(&before, call);
    }
}

#[test]
fn down_puts_all_back_wherever_up_was_killed() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    let mut half_done = 0;
    for up in [&PRIVATE[..], &PUBLIC] {
        for call in CALLS {
            for number in 1..MANY {
                let output = lab.injected(&format!("{call}:signal=KILL:when={number}"), up);
                if has_ended_well(&output) {
                    lab.done(&DOWN);
                    break;
                }
                let why = format!("{up:?}: killed at {call} {number}");
                let shown = lab.done(&["bridge", "show"]);
                if shown.contains("half up") {
                    half_done += 1;
                    if number == 1 {
                        let line = lab.refused(up);
                        assert!(
                            line.contains("half done") && line.contains("qhub bridge down br0"),
                            "{line}"
                        );
                    }
                }
                if !shown.starts_with("no bridges") {
                    lab.done(&DOWN);
                }
                lab.is_again(&before, &why);
            }
        }
    }
    assert!(half_done > 50, "{half_done}");
}

#[test]
fn down_goes_on_where_it_was_killed_or_failed() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    let had = layer_3(&lab.host, "eth0");
    let mut half_done = 0;
    for up in [&PRIVATE[..], &PUBLIC] {
        let kills = CALLS.map(|call| (call, "signal=KILL"));
        for (call, fate) in kills.into_iter().chain([("sendto", "error=EPERM")]) {
            for number in 1..MANY {
                lab.done(up);
                let output = lab.injected(&format!("{call}:{fate}:when={number}"), &DOWN);
                if has_ended_well(&output) {
                    lab.is_again(&before, "after all");
                    break;
                }
                let why = format!("{up:?}: {fate} at {call} {number}: {}", text(&output.stderr));
                let shown = lab.done(&["bridge", "show"]);
                if shown.contains("half down; go on: qhub bridge down br0") {
                    half_done += 1;
                }
                if call == "sendto" && fate.starts_with("error") && shown.contains("ports: eth0") {
                    // What fails does so as a whole: the bridge works.
                    let now = layer_3(&lab.host, "br0");
                    assert!(now == had || layer_3(&lab.host, "eth0") == had, "{why}: {now:#?}");
                }
                if !shown.starts_with("no bridges") {
                    lab.done(&DOWN);
                }
                lab.is_again(&before, &why);
            }
        }
    }
    assert!(half_done > 50, "{half_done}");
}

#[test]
fn a_signal_waits_until_the_network_is_whole() {
    if !have_labs() {
        return;
    }
    let (lab, _router) = Lab::with_lan();
    let before = lab.picture();
    for signal in ["HUP", "INT", "TERM"] {
        let output = lab.injected(&format!("sendto:signal={signal}:when=15"), &PUBLIC);
        assert!(!has_ended_well(&output), "it ends by the signal, afterwards");
        let shown = lab.done(&["bridge", "show"]);
        assert!(shown.starts_with("br0: has taken over eth0, up\n"), "{signal}: {shown}");
        lab.done(&DOWN);
        lab.is_again(&before, signal);
    }
}
