//! The clock: the kernel's boot time in words that people use.

use jiff::Timestamp;

/// Where CLOCK_BOOTTIME stands in real time, taken once so that all times of a run agree.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Real time minus boot time.
    boot_at_ns: i128,
    hz: u32,
}

/// Debian's, until jiffies tell.
pub const HZ_UNKNOWN: u32 = 250;
const SECOND_NS: u64 = 1_000_000_000;

/// Kernels are built with one of these (kernel/Kconfig.hz).
const HZ_CHOICES: [u32; 4] = [100, 250, 300, 1000];

impl Clock {
    /// Reads the clocks of this host.
    pub fn system() -> Self {
        Self {
            boot_at_ns: i128::from(read(libc::CLOCK_REALTIME)) - i128::from(boot_ns()),
            hz: HZ_UNKNOWN,
        }
    }

    /// A clock that stands: for replays and tests.
    pub fn fixed(boot_at_ns: i128, hz: u32) -> Self {
        Self { boot_at_ns, hz }
    }

    /// Real time minus boot time.
    pub fn boot_at_ns(&self) -> i128 {
        self.boot_at_ns
    }

    /// Finds the kernel's HZ from its jiffies: they start five minutes before they overflow 32
    /// bits (include/linux/jiffies.h, INITIAL_JIFFIES) and then follow CLOCK_MONOTONIC.
    ///
    /// All choices give the same jiffies at five minutes after boot: near it nothing is learned.
    pub fn set_hz(&mut self, jiffies: u64, monotonic_ns: u64) {
        if monotonic_ns.abs_diff(300 * SECOND_NS) < SECOND_NS {
            return;
        }
        let off_by = |hz: u32| {
            let hz = i128::from(hz);
            let expected =
                (1_i128 << 32) - 300 * hz + hz * i128::from(monotonic_ns) / i128::from(SECOND_NS);
            // In units of time, or the smallest HZ would always seem the nearest.
            (expected - i128::from(jiffies)).abs() * 1000 / hz
        };
        if let Some(hz) = HZ_CHOICES.into_iter().min_by_key(|&hz| off_by(hz)) {
            self.hz = hz;
        }
    }

    /// Nanoseconds of Unix time.
    pub fn unix_ns(&self, boot_ns: u64) -> u64 {
        u64::try_from(self.boot_at_ns + i128::from(boot_ns)).unwrap_or(0)
    }

    pub fn rfc3339(&self, boot_ns: u64) -> String {
        let ns = self.boot_at_ns + i128::from(boot_ns);
        // Milliseconds: what a person can use, and all digits always there.
        Timestamp::from_nanosecond(ns - ns.rem_euclid(1_000_000))
            .map(|time| format!("{time:.3}"))
            .unwrap_or_default()
    }

    pub fn jiffies_as_seconds(&self, jiffies: u32) -> f64 {
        f64::from(jiffies) / f64::from(self.hz)
    }
}

/// Nanoseconds of CLOCK_BOOTTIME, as in every event.
pub fn boot_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// User and system time that the calling thread has taken.
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The same of all threads of this process.
pub fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// `4 s`, `3 min`, `2 h`, `5 d`: two digits say enough of an age.
pub fn age(seconds: f64) -> String {
    let mut text = String::new();
    push_age(&mut text, seconds);
    text
}

/// Puts it behind `text`.
pub fn push_age(text: &mut String, seconds: f64) {
    let (number, unit) = match seconds {
        ..1.0 => (seconds * 1000.0, " ms"),
        ..120.0 => (seconds, " s"),
        ..7200.0 => (seconds / 60.0, " min"),
        ..172_800.0 => (seconds / 3600.0, " h"),
        _ => (seconds / 86_400.0, " d"),
    };
    text.push_str(itoa::Buffer::new().format(number.round_ties_even() as u64));
    text.push_str(unit);
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing; these clocks always exist on Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hz_is_found_early_and_late_after_boot() {
        for hz in HZ_CHOICES {
            for seconds in [3_u64, 298, 302, 1_000_000] {
                let jiffies = (1_u64 << 32) - 300 * u64::from(hz) + u64::from(hz) * seconds;
                let mut clock = Clock::fixed(0, 1);
                clock.set_hz(jiffies, seconds * 1_000_000_000 + 2_000_000);
                assert_eq!(clock.hz, hz, "{seconds} s after boot");
            }
        }
    }

    #[test]
    fn hz_is_not_guessed_where_all_choices_agree() {
        let mut clock = Clock::fixed(0, 250);
        clock.set_hz(1_u64 << 32, 300 * SECOND_NS);
        assert_eq!(clock.hz, 250);
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        let clock = Clock::fixed(1_700_000_000_000_000_000, 250);
        assert_eq!(clock.rfc3339(1_234_567_890), "2023-11-14T22:13:21.234Z");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!(age(0.25), "250 ms");
        assert_eq!(age(4.2), "4 s");
        assert_eq!(age(2.5), "2 s");
        assert_eq!(age(3.5), "4 s");
        assert_eq!(age(180.0), "3 min");
        assert_eq!(age(90_000.0), "25 h");
    }
}
