//! How the kernel side is hooked, for every verb that traces.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use crate::kernel::Family;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct HookArgs {
    /// How connect, close and accept are hooked, where tracing is done here
    #[arg(long, value_enum, default_value_t = ProbeChoice::Auto)]
    pub(in crate::cli) probes: ProbeChoice,
    #[command(flatten)]
    pub(in crate::cli) btf: BtfArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct BtfArgs {
    /// Type information of this kernel, where /sys/kernel/btf/vmlinux is missing
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) btf: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ProbeChoice {
    /// The best that this kernel allows, for each hook
    Auto,
    Fentry,
    Kprobe,
    Tracepoint,
}

impl ProbeChoice {
    pub(in crate::cli) fn forced(self) -> Option<Family> {
        match self {
            Self::Auto => None,
            Self::Fentry => Some(Family::Fentry),
            Self::Kprobe => Some(Family::Kprobe),
            Self::Tracepoint => Some(Family::Tracepoint),
        }
    }
}
