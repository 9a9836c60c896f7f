//! What the host asks of a test machine and what the machine answers: one plan in, one JSON line a record out.
//!
//! `xtask` includes this very file, so that both sides are compiled from one definition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the plan lies in the machine's root.
pub const PLAN_PATH: &str = "/plan";
/// The kernel parameter that names another plan: a machine that is booted twice has two.
pub const PLAN_PARAMETER: &str = "connleak.plan=";
/// The kernel parameter that names the probe family; plan and root are the same for all families.
pub const FAMILY_PARAMETER: &str = "connleak.family=";
/// The word that begins the console's last line. Without it whatever QEMU returned means nothing.
pub const VERDICT: &str = "VERDICT";
/// What stands before a test's name on the console when it begins.
pub const TEST_BEGINS: &str = "=== ";

/// Everything one boot runs, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Added to every step's environment.
    pub env: BTreeMap<String, String>,
    pub steps: Vec<Step>,
    /// Only tests whose `binary::test` contains this.
    pub only: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    /// The one machine, of those that share this plan, that does it; all of them if `None`.
    pub family: Option<String>,
    pub argv: Vec<String>,
    /// Of each test, when the step is a test binary.
    pub time_limit_s: u64,
    pub kind: StepKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A libtest binary: each of its tests runs in a process of its own.
    TestBinary,
    /// Passes when it exits with 0.
    Check,
    /// Its standard output goes to the host; counts as no test.
    Capture,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    Booted {
        kernel: String,
        family: String,
    },
    Test(TestRecord),
    Captured {
        step: String,
        exit: Option<i32>,
        output: String,
    },
    Finished(Counts),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestRecord {
    /// `binary::test`.
    pub name: String,
    pub outcome: Outcome,
    /// Why it was skipped or how it failed.
    pub reason: Option<String>,
    /// The end of what a failed test wrote.
    pub output: String,
    pub duration_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Counts {
    /// The code a machine leaves with.
    pub fn exit_code(self) -> u32 {
        u32::from(self.failed > 0)
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{VERDICT} passed={} failed={} skipped={}",
            self.passed, self.failed, self.skipped
        )
    }
}
