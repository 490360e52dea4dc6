//! How long others may wait for a slow port: lossless for bursts, fair to everyone else.
//!
//! Waiting is free while the port's oldest queued frame is young. After that it is paid from the
//! port's budget, which refills slowly; when it is spent, the port is *overloaded* and nobody
//! waits for it until its oldest queued frame is young again. So a port that stops for good costs
//! the others one budget, a slow one a few percent of their time, and a hiccup nothing.

use std::time::{Duration, Instant};

/// The age of the oldest queued frame up to which waiting is free.
pub const YOUNG: Duration = Duration::from_millis(5);

/// What is charged at once at the most; whoever waits is looked at more often than that.
const LATENESS: Duration = Duration::from_millis(10);

/// The time in which an empty budget is full again.
const REFILL: Duration = Duration::from_secs(1);

/// The budget of one egress port.
#[derive(Debug)]
pub(super) struct PauseBudget {
    full: Duration,
    left: Duration,
    counted: Option<Instant>,
    overloaded: Option<Instant>,
    overloaded_time: Duration,
}

impl PauseBudget {
    /// A budget of `full`, not yet touched.
    pub(super) fn new(full: Duration) -> Self {
        Self { full, left: full, counted: None, overloaded: None, overloaded_time: Duration::ZERO }
    }

    /// Somebody waits from `now` on. Until when may they, if `oldest` is not sent before?
    pub(super) fn deadline(&mut self, oldest: Option<Instant>, now: Instant) -> Option<Instant> {
        self.refill(now);
        oldest.map(|queued| now.max(queued + YOUNG) + self.left)
    }

    /// Somebody waited from the last call of this or of [`Self::deadline`] until `now`, while
    /// `oldest` was the time of the oldest queued frame. True when that was too long: the port is
    /// overloaded from now on.
    pub(super) fn charge(&mut self, oldest: Option<Instant>, now: Instant) -> bool {
        let (Some(counted), Some(oldest)) = (self.counted, oldest) else {
            return false;
        };
        // A turn that came late is our own fault, or the machine's.
        let on_time = now.checked_sub(LATENESS).unwrap_or(counted);
        let paid_from = counted.max(oldest + YOUNG).max(on_time);
        self.refill(paid_from.min(now));
        self.left = self.left.saturating_sub(now.saturating_duration_since(paid_from));
        self.counted = Some(now);
        let is_spent = self.left.is_zero() && now >= oldest + YOUNG && self.overloaded.is_none();
        if is_spent {
            self.overloaded = Some(now);
        }
        is_spent
    }

    /// Is the port overloaded? It is well again as soon as its oldest frame is young.
    pub(super) fn is_overloaded(&mut self, oldest: Option<Instant>, now: Instant) -> bool {
        if let Some(since) = self.overloaded
            && oldest.is_none_or(|queued| now < queued + YOUNG)
        {
            self.overloaded_time += now.saturating_duration_since(since);
            self.overloaded = None;
        }
        self.overloaded.is_some()
    }

    /// How long the port has been overloaded, all in all.
    pub(super) fn overloaded_time(&self, now: Instant) -> Duration {
        self.overloaded_time
            + self.overloaded.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = self.counted.map_or(Duration::ZERO, |counted| now.saturating_duration_since(counted));
        let earned = self.full.mul_f64((elapsed.as_secs_f64() / REFILL.as_secs_f64()).min(1.0));
        self.left = self.full.min(self.left + earned);
        self.counted = Some(self.counted.map_or(now, |counted| counted.max(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Duration = Duration::from_millis(50);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Lets somebody wait until `to`, looked at every millisecond; true when that was too long.
    fn wait(budget: &mut PauseBudget, oldest: Option<Instant>, from: Instant, to: Instant) -> bool {
        let (mut now, mut is_spent) = (from, false);
        while now < to {
            budget.deadline(oldest, now);
            now = to.min(now + ms(1));
            is_spent |= budget.charge(oldest, now);
        }
        is_spent
    }

    fn budget() -> (PauseBudget, Instant) {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary start of virtual time")]
        (PauseBudget::new(FULL), Instant::now())
    }

    #[test]
    fn a_stopped_port_costs_the_free_time_and_one_budget() {
        let (mut budget, start) = budget();
        let stuck = Some(start);
        assert_eq!(budget.deadline(stuck, start), Some(start + ms(55)));
        let just_before = start + ms(55) - Duration::from_nanos(1);
        assert!(!wait(&mut budget, stuck, start, just_before));
        assert!(!budget.is_overloaded(stuck, just_before));
        assert!(budget.charge(stuck, start + ms(55)));
        assert!(budget.is_overloaded(stuck, start + ms(55)));
        assert!(budget.is_overloaded(stuck, start + ms(9999)), "however long it stays stuck");
        assert_eq!(budget.overloaded_time(start + ms(155)), ms(100));
    }

    #[test]
    fn waiting_is_free_while_the_oldest_frame_is_young() {
        let (mut budget, start) = budget();
        for turn in 0..1000 {
            let now = start + ms(turn * 5);
            budget.deadline(Some(now), now);
            budget.charge(Some(now), now + ms(5));
        }
        assert_eq!(budget.left, FULL);
    }

    #[test]
    fn an_overloaded_port_is_well_with_a_young_oldest_frame() {
        let (mut budget, start) = budget();
        let now = start + ms(60);
        assert!(wait(&mut budget, Some(start), start, now));
        assert!(budget.is_overloaded(Some(now - YOUNG), now));
        assert!(!budget.is_overloaded(Some(now - YOUNG + Duration::from_nanos(1)), now));
        assert!(!budget.is_overloaded(Some(start), now), "until it waits again");
    }

    #[test]
    fn a_spent_budget_refills_in_a_second() {
        let (mut budget, start) = budget();
        assert!(wait(&mut budget, Some(start), start, start + ms(55)));
        assert_eq!(budget.left, Duration::ZERO);
        let later = start + ms(555);
        assert_eq!(
            budget.deadline(Some(later), later),
            Some(later + YOUNG + ms(25)),
            "half of it in half a second"
        );
        let much_later = start + ms(9000);
        assert_eq!(budget.deadline(Some(much_later), much_later), Some(much_later + YOUNG + FULL));
    }

    #[test]
    fn without_a_budget_nobody_waits_longer_than_is_free() {
        let (mut budget, start) = budget();
        budget.full = Duration::ZERO;
        budget.left = Duration::ZERO;
        assert_eq!(budget.deadline(Some(start), start), Some(start + YOUNG));
        budget.charge(Some(start), start + YOUNG);
        assert!(budget.is_overloaded(Some(start), start + YOUNG));
    }

    #[test]
    fn a_late_turn_is_not_the_ports_fault() {
        for (late, left) in [(14, 41), (15, 40), (16, 40), (500, 40)] {
            let (mut budget, start) = budget();
            budget.deadline(Some(start), start);
            assert!(!budget.charge(Some(start), start + ms(late)));
            assert_eq!(budget.left, ms(left), "{late} ms");
        }
    }
}
