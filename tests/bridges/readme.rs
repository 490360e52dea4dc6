//! The commands for bridges that the README tells, as they stand there.

use std::collections::BTreeSet;

use crate::common::lab::{Lab, have_labs, text};

const README: &str = include_str!("../../README.md");

#[test]
fn each_command_makes_a_bridge_that_can_be_taken_down() {
    if !have_labs() {
        return;
    }
    let pieces = README.split(['`', '\n']).map(|piece| piece.trim_start_matches("sudo "));
    let commands: BTreeSet<&str> = pieces.filter(|piece| piece.starts_with("qhub bridge up")).collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in commands {
        let (lab, _router) = Lab::with_lan();
        let before = lab.picture();
        let arguments: Vec<&str> = command.split(' ').skip(1).collect();
        let name = arguments.get(2).filter(|name| !name.starts_with('-')).unwrap_or(&"qhub0");
        let output = lab.on_terminal(&arguments, "y\n");
        assert!(output.status.success(), "{command}: {}", text(&output.stdout));
        assert!(lab.done(&["bridge", "show"]).starts_with(&format!("{name}: ")), "{command}");
        assert!(README.contains("sudo qhub bridge down br0\n") && README.contains("sudo qhub bridge show\n"));
        let output = lab.on_terminal(&["bridge", "down", name], "y\n");
        assert!(output.status.success(), "{command}: {}", text(&output.stdout));
        lab.is_again(&before, command);
    }
}
