//! The arguments. Parsing only validates; touching the system comes later.

mod hooks;
mod printed;
mod value;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand};

pub(super) use self::hooks::{BtfArgs, HookArgs};
pub(super) use self::printed::{Format, PickedArgs, PrintedArgs, ReportFormat};
use self::value::{duration, interval, port, ring_bytes, stack_bytes};
use super::moment::{self, Moment};

/// Says which process opened every TCP connection to Redis that is still open, from which line
/// of code, and whether it leaks.
#[derive(Debug, Parser)]
#[command(name = "connleak", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 2 it could not be done (one line on stderr says why \
and what to do).\n`connleak doctor` also exits 1: tracing can run, but degraded; `connleak daemon` \
78: its\nconfiguration is wrong.";

const GUARD_EXIT_CODES: &str = "A connection is left open if the command, or any process it \
started, opened it and nobody closed it: it is still open when the command ends, or was when the \
last process that held it ended.\n\nExit codes: 1 more than --max-growth were left open; 2 it could \
not be done (one line on stderr says why and what to do); else the command's own, 128+N where \
signal N ended it.\n\nThe table goes to stderr. With -o json the object goes to stdout, and what the \
command writes there goes to stderr.";

const NODE_PRELOAD_USE: &str = "Use:\n  connleak node-preload > /etc/connleak/node.js\n  \
NODE_OPTIONS=\"--require /etc/connleak/node.js\" node app.js\n\nNode connects from its event loop, where \
the caller is no longer on the stack. The file remembers the caller and lays it on the stack at \
connect, up to 3 KiB, 200 times a second; it writes and sends nothing.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Watch connections open and close; the report at the end, or on Ctrl-C
    Trace(TraceArgs),
    /// Watch the openers live in this terminal: of the daemon that runs here, else traced anew
    Top(TopArgs),
    /// Print the report of a recorded trace; needs neither root nor that kernel
    Replay(ReplayArgs),
    /// List every watched socket with its holders, now, without tracing
    Snapshot(SnapshotArgs),
    /// What is outstanding, from the daemon, the history, a recording or a kept report, in the
    /// format of your tools
    Report(ReportArgs),
    /// What grew between two reports or two moments of the history, by opener and site
    #[command(
        after_help = "Exit codes: 0 done, 1 grew (only with --fail-on-growth), 2 it could not be done."
    )]
    Diff(DiffArgs),
    /// Check whether tracing can run here, and what to do where it cannot
    Doctor(DoctorArgs),
    /// Run a command, and fail if it leaves connections open: a leak check for any test suite
    #[command(after_help = GUARD_EXIT_CODES)]
    Guard(GuardArgs),
    /// Keep the policy running: levels, restarts with evidence, health
    #[command(
        after_help = "Exit codes: 0 done, 2 it could not be done, 78 the configuration is wrong."
    )]
    Daemon(DaemonArgs),
    /// Is all well: counts, latency, Redis, services; one line each
    #[command(after_help = "Exit codes: 0 healthy, 1 warning, 2 critical, 3 unknown.")]
    Check(CheckArgs),
    /// What the daemon knows now
    Status(StatusArgs),
    /// Tell the daemon that a person has looked: MANUAL ends
    Ack(ControlArgs),
    /// The worst openers over all machines, as their daemons tell it in a Redis Stream
    Fleet(FleetArgs),
    /// Print a file for `node --require`, with which Node processes tell who wanted a connection
    #[command(after_help = NODE_PRELOAD_USE)]
    NodePreload(NodePreloadArgs),
}

#[derive(Debug, ClapArgs)]
pub(super) struct DaemonArgs {
    /// Configuration; /etc/connleak/connleak.toml where it exists, else built-in defaults
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Only say whether the configuration is good
    #[arg(long)]
    pub(super) check_config: bool,
    /// Log what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) hooks: HookArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct CheckArgs {
    /// What to check, and against what; as for the daemon
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

/// Which daemon is asked.
#[derive(Debug, ClapArgs)]
pub(super) struct ControlArgs {
    /// The daemon's configuration, which names its socket
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The daemon's socket
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) control: ControlArgs,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

#[derive(Debug, ClapArgs)]
pub(super) struct FleetArgs {
    /// Redis that has the stream, as redis://HOST:PORT, rediss:// or unix://; of a cluster any node.
    /// Can be given several times, and several at once
    #[arg(long = "redis", value_name = "URL", num_args = 1.., required = true)]
    pub(super) redis: Vec<String>,
    /// The stream: [export.stream] key of the daemons
    #[arg(long, default_value = "connleak:reports")]
    pub(super) key: String,
    #[arg(long, value_name = "NAME")]
    pub(super) username: Option<String>,
    /// A file that holds the password
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// Look back this far; hosts that said nothing since are not shown
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(super) within: Duration,
    /// Show so many openers
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) limit: usize,
    /// Go on, and show what changes
    #[arg(long)]
    pub(super) follow: bool,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

#[derive(Debug, ClapArgs)]
pub(super) struct TraceArgs {
    /// Stop after this long, such as 60s or 5m; without it, on Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(super) duration: Option<Duration>,
    #[command(flatten)]
    pub(super) ports: PortArgs,
    #[command(flatten)]
    pub(super) picked: PickedArgs,
    /// Show only sockets of this network namespace: its inode, as in /proc/PID/ns/net; can be
    /// given several times
    #[arg(long = "netns", value_name = "INODE")]
    pub(super) namespaces: Vec<u32>,
    #[command(flatten)]
    pub(super) printed: PrintedArgs,
    #[command(flatten)]
    pub(super) hooks: HookArgs,
    /// Largest copy of the user stack at connect, bytes; 0 takes no stacks
    #[arg(long, value_name = "BYTES", default_value_t = 32 * 1024, value_parser = stack_bytes)]
    pub(super) stack_bytes: u32,
    /// Stacks taken in full a second and process; beyond it, one in 256
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(super) stacks_per_second: u32,
    /// Name compiled frames of JVMs that cannot be read: has them write /tmp/perf-PID.map, with
    /// `jcmd` as their user
    #[arg(long)]
    pub(super) java_perfmap: bool,
    /// Most sockets that are tracked at once
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(super) max_sockets: u32,
    /// Size of the event ring, bytes; a power of two
    #[arg(long, value_name = "BYTES", default_value_t = 8 * 1024 * 1024, value_parser = ring_bytes)]
    pub(super) ring_bytes: u32,
    /// Compare with the kernel's own lists this often; 0s never
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(super) reconcile: Duration,
    #[command(flatten)]
    pub(super) judging: JudgingArgs,
    /// Write all that is traced to FILE, for `connleak replay`; never the memory of a stack
    #[arg(long, value_name = "FILE")]
    pub(super) record: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct TopArgs {
    #[command(flatten)]
    pub(super) control: ControlArgs,
    /// Trace this port here, whatever a daemon watches; can be given several times
    #[arg(long = "port", value_name = "PORT", value_parser = port)]
    pub(super) ports: Vec<u16>,
    /// Look again this often
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub(super) interval: Duration,
    #[command(flatten)]
    pub(super) hooks: HookArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct GuardArgs {
    /// So many connections may be left open
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) max_growth: u64,
    #[command(flatten)]
    pub(super) ports: PortArgs,
    /// Write the result as JUnit XML to FILE
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Print annotations for GitHub's workflows to stdout
    #[arg(long)]
    pub(super) github: bool,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) hooks: HookArgs,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true)]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ReplayArgs {
    /// What `connleak trace --record FILE` wrote
    #[arg(value_name = "FILE")]
    pub(super) recording: PathBuf,
    #[command(flatten)]
    pub(super) judging: JudgingArgs,
    #[command(flatten)]
    pub(super) printed: PrintedArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ReportArgs {
    /// From the history: what was opened since then (1h ago, 14:30 UTC, or RFC 3339), and is
    /// outstanding now
    #[arg(long, value_name = "MOMENT", value_parser = moment::parse, conflicts_with_all = ["recording", "report"])]
    pub(super) since: Option<Moment>,
    /// From the history: what was opened between two moments, and outstanding at the second
    #[arg(long, num_args = 2, value_names = ["A", "B"], value_parser = moment::parse, conflicts_with_all = ["since", "recording", "report"])]
    pub(super) between: Option<Vec<Moment>>,
    /// The history; where it is left out, the configuration's
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recording", "report"])]
    pub(super) history: Option<PathBuf>,
    /// From what `connleak trace --record FILE` wrote
    #[arg(long, value_name = "FILE", group = "source")]
    pub(super) recording: Option<PathBuf>,
    /// From a report that was kept with `-o json`
    #[arg(long, value_name = "FILE", group = "source")]
    pub(super) report: Option<PathBuf>,
    #[command(flatten)]
    pub(super) picked: PickedArgs,
    /// Show only what was opened there: FUNCTION, FILE or FILE:LINE; can be given several times
    #[arg(long = "site", value_name = "SITE")]
    pub(super) sites: Vec<String>,
    #[command(flatten)]
    pub(super) printed: PrintedArgs,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct DiffArgs {
    /// A report or snapshot kept with `-o json`, a recording, or a moment of the history (1h ago,
    /// 14:30 UTC, or RFC 3339)
    #[arg(value_name = "A")]
    pub(super) before: String,
    /// The later one; `now` is the history's last sample
    #[arg(value_name = "B")]
    pub(super) after: String,
    /// Exit with 1 where more is outstanding in B than in A
    #[arg(long)]
    pub(super) fail_on_growth: bool,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
    /// The history; where it is left out, the configuration's
    #[arg(long, value_name = "FILE")]
    pub(super) history: Option<PathBuf>,
    /// The daemon's configuration, which names its history
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct SnapshotArgs {
    #[command(flatten)]
    pub(super) ports: PortArgs,
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Table)]
    pub(super) output: ReportFormat,
    #[command(flatten)]
    pub(super) btf: BtfArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub(super) ports: PortArgs,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) hooks: HookArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct NodePreloadArgs {
    #[command(flatten)]
    pub(super) ports: PortArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct PortArgs {
    /// Port of a Redis server to watch; can be given several times
    #[arg(long = "port", value_name = "PORT", default_value = "6379", value_parser = port)]
    pub(super) ports: Vec<u16>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct JudgingArgs {
    /// The daemon's configuration: its [verdict], its [[site]] rules, and the levels of its ports;
    /// /etc/connleak/connleak.toml where it exists, else built-in defaults
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Args;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
