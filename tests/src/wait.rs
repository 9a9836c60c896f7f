//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How much slower this machine is than the developer's: `CONNLEAK_SLOW`, 1 where it is unset.
///
/// Emulated machines set 10; it stretches deadlines only, which a passing test never reaches.
#[must_use]
pub fn slowness() -> u32 {
    std::env::var("CONNLEAK_SLOW")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1)
}

/// The deadline of an ordinary wait.
#[must_use]
pub fn patience() -> Duration {
    Duration::from_secs(20) * slowness()
}

/// Polls `probe` until it gives a value; an error that names `what` after [`patience`].
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + patience();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("failed to see within {:?}: {what}", patience());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Polls until `probe` gives `expected`; the error shows what it gave last.
pub fn until_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<()> {
    let mut last = None;
    until(what, || {
        let now = probe();
        let equal = matches!(&now, Ok(value) if value == expected);
        last = Some(now);
        equal.then_some(())
    })
    .map_err(|error| anyhow::anyhow!("{error}: expected {expected:?}, last was {last:?}"))
}
