//! A list of steps, done as a whole or not at all.

use anyhow::{Error, Result};

use super::request::BridgeName;
use super::step::Step;

/// Who does the steps.
pub(super) trait Executor {
    /// Does a step. What it did before it fails is for [`Self::undo`].
    fn apply(&mut self, step: &Step) -> Result<()>;

    /// Puts back what a step changed, however much that is.
    fn undo(&mut self, step: &Step) -> Result<()>;
}

/// Why the steps were not done.
#[derive(Debug)]
pub(super) struct Failure {
    /// The reason, with the step.
    pub(super) error: Error,
    /// What could not be put back.
    pub(super) left: Vec<Error>,
}

/// Does the steps; when one fails, undoes it and those before.
pub(super) fn apply_all(
    executor: &mut dyn Executor,
    bridge: &BridgeName,
    steps: &[Step],
) -> Result<(), Failure> {
    for (index, step) in steps.iter().enumerate() {
        if let Err(error) = executor.apply(step) {
            let left = undo_all(executor, bridge, &steps[..=index]);
            return Err(Failure { error: error.context(step.describe(bridge)), left });
        }
    }
    Ok(())
}

/// Undoes the steps, the last first, and gives what could not be undone: the rest is. But what a takeover can't give back
/// stays on the bridge, and so does the bridge.
pub(super) fn undo_all(executor: &mut dyn Executor, bridge: &BridgeName, steps: &[Step]) -> Vec<Error> {
    let mut left = Vec::new();
    for step in steps.iter().rev() {
        if let Err(error) = executor.undo(step) {
            left.push(error.context(format!("undo '{}'", step.describe(bridge))));
            if step.takeover().is_some() {
                break;
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_bridge::step::Takeover;
    use anyhow::bail;

    #[derive(Default)]
    struct Fake {
        log: Vec<String>,
        fails_at: Option<usize>,
        cannot_undo: Option<usize>,
    }

    impl Executor for Fake {
        fn apply(&mut self, step: &Step) -> Result<()> {
            let Step::Port { interface } = step else { panic!("{step:?}") };
            self.log.push(format!("+{interface}"));
            if self.fails_at == Some(interface.parse().unwrap()) {
                bail!("no way");
            }
            Ok(())
        }

        fn undo(&mut self, step: &Step) -> Result<()> {
            if step.takeover().is_some() {
                bail!("it stays");
            }
            let Step::Port { interface } = step else { panic!("{step:?}") };
            self.log.push(format!("-{interface}"));
            if self.cannot_undo == Some(interface.parse().unwrap()) {
                bail!("stuck");
            }
            Ok(())
        }
    }

    fn run(fake: &mut Fake) -> Result<(), Failure> {
        let steps: Vec<Step> =
            (0..4).map(|number: u32| Step::Port { interface: number.to_string() }).collect();
        apply_all(fake, &"br0".parse().unwrap(), &steps)
    }

    #[test]
    fn steps_are_done_in_order() {
        let mut fake = Fake::default();
        assert!(run(&mut fake).is_ok());
        assert_eq!(fake.log, ["+0", "+1", "+2", "+3"]);
    }

    #[test]
    fn the_step_that_fails_is_undone_and_those_before_it_in_reverse() {
        for fails_at in 0..4 {
            let mut fake = Fake { fails_at: Some(fails_at), ..Fake::default() };
            let failure = run(&mut fake).unwrap_err();
            assert_eq!(format!("{:#}", failure.error), format!("make {fails_at} a port of br0: no way"));
            assert!(failure.left.is_empty());
            let done = (0..=fails_at).map(|step| format!("+{step}"));
            let undone = (0..=fails_at).rev().map(|step| format!("-{step}"));
            assert_eq!(fake.log, done.chain(undone).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_cannot_be_undone_does_not_keep_the_rest_from_it() {
        let mut fake = Fake { fails_at: Some(2), cannot_undo: Some(1), ..Fake::default() };
        let failure = run(&mut fake).unwrap_err();
        assert_eq!(fake.log, ["+0", "+1", "+2", "-2", "-1", "-0"]);
        let left: Vec<String> = failure.left.iter().map(|error| format!("{error:#}")).collect();
        assert_eq!(left, ["undo 'make 1 a port of br0': stuck"]);
    }

    #[test]
    fn what_carries_addresses_that_cannot_be_given_back_stays() {
        let port = |number: u32| Step::Port { interface: number.to_string() };
        let takeover = Takeover {
            interface: "eth0".into(),
            index: 2,
            addresses: vec![],
            routes: vec![],
            learned: vec![],
            uptime: 0,
        };
        let steps = [port(0), Step::Takeover(takeover), port(2)];
        let mut fake = Fake::default();
        let left = undo_all(&mut fake, &"br0".parse().unwrap(), &steps);
        assert_eq!((fake.log, left.len()), (vec!["-2".to_owned()], 1));
    }
}
