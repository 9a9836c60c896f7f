//! The allowance: how much of a CPU the threads in the background may take together.
//!
//! It only delays: stacks that wait too long are dropped by the queue's own bound and say so, and
//! counts never come this way.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;

/// What was not used is saved, up to this: the first stacks of a large program are named at once.
const SAVED_MAX: Duration = Duration::from_secs(2);
/// A pause is no longer, or a new allowance would be heard late.
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Allowance {
    /// Of one CPU; 0 is as much as they like.
    percent: AtomicU32,
    balance: Mutex<Balance>,
}

#[derive(Debug)]
struct Balance {
    at: Instant,
    saved_ns: i64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            percent: AtomicU32::new(0),
            balance: Mutex::new(Balance {
                at: Instant::now(),
                saved_ns: SAVED_MAX.as_nanos() as i64,
            }),
        }
    }
}

impl Allowance {
    /// From here on.
    pub(super) fn set(&self, percent: u32) {
        self.percent.store(percent, Relaxed);
    }

    /// How long to pause for it, when a thread has taken `used_ns` more at `now`.
    fn spend(&self, used_ns: u64, now: Instant) -> Duration {
        let percent = i64::from(self.percent.load(Relaxed));
        if percent == 0 {
            return Duration::ZERO;
        }
        let mut balance = self.balance.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(balance.at);
        let earned_ns = (passed.as_nanos() as i64).saturating_mul(percent) / 100;
        let most_ns = SAVED_MAX.as_nanos() as i64;
        balance.saved_ns = balance.saved_ns.saturating_add(earned_ns).min(most_ns) - used_ns as i64;
        balance.at = now;
        let owed_ns = (-balance.saved_ns).max(0) as u64;
        Duration::from_nanos(owed_ns * 100 / percent as u64)
    }
}

/// One thread's account with the allowance.
pub(super) struct Account {
    allowance: Arc<Allowance>,
    paid_ns: u64,
}

impl Account {
    /// For the thread that calls this.
    pub(super) fn of_this_thread(allowance: Arc<Allowance>) -> Self {
        Self {
            allowance,
            paid_ns: clock::thread_cpu_ns(),
        }
    }

    /// Pauses until what this thread did since the last time is paid for.
    pub(super) fn settle(&mut self) {
        let spent_ns = clock::thread_cpu_ns();
        let mut pause = self
            .allowance
            .spend(spent_ns.saturating_sub(self.paid_ns), Instant::now());
        self.paid_ns = spent_ns;
        while !pause.is_zero() {
            thread::sleep(pause.min(PAUSE_MAX));
            pause = self.allowance.spend(0, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(percent: u32, at: Instant) -> Allowance {
        let allowance = Allowance::default();
        allowance.set(percent);
        allowance.balance.lock().expect("nobody else").at = at;
        allowance
    }

    #[test]
    fn what_is_saved_is_spent_first_and_then_each_part_is_waited_for() {
        let start = Instant::now();
        let allowance = of(10, start);
        let saved_ns = SAVED_MAX.as_nanos() as u64;
        assert_eq!(allowance.spend(saved_ns, start), Duration::ZERO);
        let pause = allowance.spend(5_000_000, start);
        assert_eq!(pause, Duration::from_millis(50));
        assert_eq!(allowance.spend(0, start + pause), Duration::ZERO);
    }

    #[test]
    fn a_long_rest_saves_no_more_than_the_most() {
        let start = Instant::now();
        let allowance = of(50, start);
        let later = start + Duration::from_secs(3600);
        let saved_ns = SAVED_MAX.as_nanos() as u64;
        let pause = allowance.spend(saved_ns + 1_000_000, later);
        assert_eq!(pause, Duration::from_millis(2));
    }

    #[test]
    fn none_is_no_bound() {
        let allowance = of(0, Instant::now());
        let pause = allowance.spend(u64::MAX / 2, Instant::now());
        assert_eq!(pause, Duration::ZERO);
    }

    #[test]
    fn two_threads_that_never_rest_take_no_more_than_they_may() {
        let allowance = Arc::new(of(20, Instant::now()));
        allowance.balance.lock().expect("nobody else").saved_ns = 0;
        let began = Instant::now();
        let busy = || {
            let mut account = Account::of_this_thread(Arc::clone(&allowance));
            let before_ns = clock::thread_cpu_ns();
            while began.elapsed() < Duration::from_millis(600) {
                let piece = clock::thread_cpu_ns() + 2_000_000;
                while clock::thread_cpu_ns() < piece {}
                account.settle();
            }
            clock::thread_cpu_ns() - before_ns
        };
        let spent_ns = thread::scope(|scope| {
            let threads = [scope.spawn(busy), scope.spawn(busy)];
            threads
                .map(|it| it.join().expect("no panic"))
                .iter()
                .sum::<u64>()
        });
        let share = spent_ns as f64 / began.elapsed().as_nanos() as f64;
        assert!(share < 0.25, "{share}");
    }
}
