//! A share: one kernel's work is done by several machines, which differ in the probe family.

/// How many they are: `CONNLEAK_MACHINES`, 1 where it is unset.
#[must_use]
pub fn machines() -> u32 {
    let told = std::env::var("CONNLEAK_MACHINES").ok();
    told.and_then(|count| count.parse().ok()).unwrap_or(1)
}
