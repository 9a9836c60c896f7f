//! Doubt: a program that the kernel left out, or a change of a map that it refused, may have left
//! the map wrong. It is set right about a second later, not at the next regular reconcile.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Long enough for what happened to settle, and a burst's worth of doubts to be settled at once.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Doubt {
    ask_at: Option<Instant>,
    /// What was left out and refused, by the last reconcile.
    settled: u64,
}

impl Doubt {
    /// Something happened, and with it something may have been left out.
    pub(super) fn arm(&mut self) {
        self.ask_at.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// Waits until the kernel is to be asked; for ever while nothing happens.
    pub(super) async fn due(&self) {
        match self.ask_at {
            Some(at) => sleep_until(at).await,
            None => pending().await,
        }
    }

    /// The kernel was asked: has it left out or refused more than was settled?
    pub(super) fn remains(&mut self, program_busy: u64) -> bool {
        self.ask_at = None;
        program_busy > self.settled
    }

    pub(super) fn settle(&mut self, program_busy: u64) {
        self.settled = program_busy;
    }
}

#[cfg(test)]
mod tests {
    use super::Doubt;

    #[test]
    fn each_miss_is_doubted_until_it_is_settled() {
        let mut doubt = Doubt::default();
        assert!(!doubt.remains(0));
        assert!(doubt.remains(2));
        doubt.settle(2);
        assert!(!doubt.remains(2));
        assert!(doubt.remains(3));
    }
}
