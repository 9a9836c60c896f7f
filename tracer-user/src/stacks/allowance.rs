//! The allowance: how much of a CPU a thread in the background may take on average.
//!
//! Counts never come this way. A stack that is named later may be of a process that has ended by
//! then, and one too many in the queue is dropped; both say so.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;

/// What was not used is saved, up to this: the first stacks of a large program are named at once.
const SAVED_MAX_NS: i64 = 2_000_000_000;

/// Of each of the threads that have an account with it.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    terms: Mutex<Terms>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Terms {
    /// Of one CPU; 0 is as much as it likes.
    percent: u32,
    /// How many wait for what the threads do, and would rather not.
    hurried: usize,
    /// Nobody waits for anything any more.
    is_over: bool,
}

impl Allowance {
    /// From here on.
    pub(super) fn set(&self, percent: u32) {
        self.change(|terms| terms.percent = percent);
    }

    /// No pauses until the guard is dropped; what is taken meanwhile is paid for later.
    pub(super) fn hurry(self: &Arc<Self>) -> Hurry {
        self.change(|terms| terms.hurried += 1);
        Hurry(Arc::clone(self))
    }

    /// No pauses for good.
    pub(super) fn end(&self) {
        self.change(|terms| terms.is_over = true);
    }

    fn change(&self, how: impl FnOnce(&mut Terms)) {
        how(&mut self.terms());
        self.changed.notify_all();
    }

    fn terms(&self) -> MutexGuard<'_, Terms> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Allowance::hurry`].
pub struct Hurry(Arc<Allowance>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.change(|terms| terms.hurried -= 1);
    }
}

/// One thread's account with the allowance.
pub(super) struct Account {
    allowance: Arc<Allowance>,
    balance: Balance,
    /// What this thread had taken when it last settled; `None` after a job that nothing bounded.
    settled_ns: Option<u64>,
}

impl Account {
    /// For the thread that calls this.
    pub(super) fn of_this_thread(allowance: Arc<Allowance>) -> Self {
        Self {
            allowance,
            balance: Balance::full(Instant::now()),
            settled_ns: Some(clock::thread_cpu_ns()),
        }
    }

    /// A job comes, after a rest perhaps.
    pub(super) fn begin(&mut self) {
        let percent = self.allowance.terms().percent;
        self.balance.rested(percent, Instant::now());
    }

    /// The job is done: pauses until it is paid for.
    pub(super) fn settle(&mut self) {
        let allowance = Arc::clone(&self.allowance);
        let mut terms = allowance.terms();
        if terms.percent == 0 {
            // The clock of a thread is a system call, too much for each of many stacks.
            self.settled_ns = None;
            return;
        }
        let taken_ns = clock::thread_cpu_ns();
        let settled_ns = self.settled_ns.replace(taken_ns).unwrap_or(taken_ns);
        let mut used_ns = taken_ns.saturating_sub(settled_ns);
        loop {
            let pause = self.balance.spend(used_ns, terms.percent, Instant::now());
            used_ns = 0;
            if pause.is_zero() || terms.hurried > 0 || terms.is_over {
                return;
            }
            let waited = allowance.changed.wait_timeout(terms, pause);
            terms = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[derive(Debug)]
struct Balance {
    at: Instant,
    saved_ns: i64,
}

impl Balance {
    fn full(at: Instant) -> Self {
        Self {
            at,
            saved_ns: SAVED_MAX_NS,
        }
    }

    /// What came together meanwhile is saved, as far as it may be.
    fn rested(&mut self, percent: u32, now: Instant) {
        self.earn(percent, now);
        self.saved_ns = self.saved_ns.min(SAVED_MAX_NS);
    }

    /// How long to pause for it, when `used_ns` have been taken since the job began.
    fn spend(&mut self, used_ns: u64, percent: u32, now: Instant) -> Duration {
        if percent == 0 {
            *self = Self::full(now);
            return Duration::ZERO;
        }
        self.earn(percent, now);
        // What was earned during the job has paid for a part of it before anything is saved.
        self.saved_ns = (self.saved_ns - used_ns as i64).min(SAVED_MAX_NS);
        let owed_ns = (-self.saved_ns).max(0) as u64;
        Duration::from_nanos(owed_ns.saturating_mul(100) / u64::from(percent))
    }

    fn earn(&mut self, percent: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let earned_ns = passed.as_nanos() * u128::from(percent) / 100;
        self.saved_ns = self.saved_ns.saturating_add(earned_ns as i64);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const SAVED_MAX: u64 = SAVED_MAX_NS as u64;

    #[test]
    fn what_is_saved_is_spent_first_and_then_each_part_is_waited_for() {
        let start = Instant::now();
        let mut balance = Balance::full(start);
        assert_eq!(balance.spend(SAVED_MAX, 10, start), Duration::ZERO);
        let pause = balance.spend(5_000_000, 10, start);
        assert_eq!(pause, Duration::from_millis(50));
        assert_eq!(balance.spend(0, 10, start + pause), Duration::ZERO);
    }

    #[test]
    fn a_long_rest_saves_no_more_than_the_most() {
        let start = Instant::now();
        let mut balance = Balance::full(start);
        let later = start + Duration::from_secs(3600);
        balance.rested(50, later);
        let pause = balance.spend(SAVED_MAX + 1_000_000, 50, later);
        assert_eq!(pause, Duration::from_millis(2));
    }

    #[test]
    fn a_job_that_lasts_longer_than_what_is_saved_earns_as_it_goes() {
        let start = Instant::now();
        let end = start + Duration::from_secs(10);
        let used_ns = 10_000_000_000;
        assert_eq!(
            Balance::full(start).spend(used_ns, 100, end),
            Duration::ZERO
        );
        // 2 s saved and 5 s earned.
        let pause = Balance::full(start).spend(used_ns, 50, end);
        assert_eq!(pause, Duration::from_secs(6));
    }

    #[test]
    fn none_is_no_bound() {
        let now = Instant::now();
        assert_eq!(
            Balance::full(now).spend(u64::MAX / 2, 0, now),
            Duration::ZERO
        );
    }

    /// Takes 2 ms of CPU at a time until `until` says so. What it took of a CPU.
    fn share_taken(account: &mut Account, until: impl Fn() -> bool) -> f64 {
        let (began, before_ns) = (Instant::now(), clock::thread_cpu_ns());
        while !until() {
            account.begin();
            let piece_ns = clock::thread_cpu_ns() + 2_000_000;
            while clock::thread_cpu_ns() < piece_ns {}
            account.settle();
        }
        let taken_ns = clock::thread_cpu_ns() - before_ns;
        taken_ns as f64 / began.elapsed().as_nanos() as f64
    }

    #[test]
    fn a_thread_that_never_rests_takes_no_more_than_it_may() {
        let allowance = Arc::new(Allowance::default());
        allowance.set(20);
        let mut account = Account::of_this_thread(allowance);
        account.balance.saved_ns = 0;
        let began = Instant::now();
        let share = share_taken(&mut account, || {
            began.elapsed() > Duration::from_millis(600)
        });
        assert!(share < 0.25, "{share}");
    }

    #[test]
    fn a_pause_ends_with_the_hurry_of_another_and_with_the_end() {
        for hurried in [true, false] {
            let allowance = Arc::new(Allowance::default());
            allowance.set(1);
            let mut account = Account::of_this_thread(Arc::clone(&allowance));
            // More than a test lasts, at a hundredth of a CPU.
            account.balance.saved_ns = -SAVED_MAX_NS * 100;
            let paused = thread::spawn(move || account.settle());
            let hurry = match hurried {
                true => Some(allowance.hurry()),
                false => {
                    allowance.end();
                    None
                }
            };
            paused.join().expect("no panic");
            drop(hurry);
        }
    }
}
