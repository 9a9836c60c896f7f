//! The command line: what the user asked for, and where the answer goes.

// Asks no daemon: it reads what all of them wrote.
mod fleet;

mod ack;
mod args;
mod check;
mod daemon;
mod diff;
mod doctor;
mod guard;
mod moment;
mod node_preload;
mod output;
mod render;
mod replay;
mod report;
mod snapshot;
mod status;
mod top;
mod trace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::memory;
use args::{Args, Command};

/// Exit code of anything that could not be done; clap uses the same for bad arguments.
const FAILED: u8 = 2;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    memory::keep_nothing_large();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    // Rust ignores SIGPIPE, and a closed pipe is an error that `output` takes for success.
    match dispatch(args) {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error, FAILED),
    }
}

fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    output::complain(&crate::report::clean(&format!("{error:#}")));
    ExitCode::from(code)
}

/// Help goes where it was asked for; anything else that clap says becomes one line.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    if matches!(
        error.kind(),
        DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // Where stdout is closed nobody wants the help.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(FAILED));
    }
    let text = error.to_string();
    // The first paragraph says what is wrong, the others repeat the usage.
    let what: Vec<&str> = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let what = what.join(" ");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    output::complain(&crate::report::clean(&format!(
        "{what}; see `connleak --help`"
    )));
    ExitCode::from(FAILED)
}

fn dispatch(args: Args) -> Result<ExitCode> {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            // Those it has for a look-up of a name; every thread of ours says whose it is.
            .thread_name("connleak-blocking")
            .enable_all()
            .build()
    };
    match args.command {
        Command::Trace(args) => runtime()?.block_on(trace::run(args)),
        Command::Top(args) => runtime()?.block_on(top::run(args)),
        Command::Replay(args) => replay::run(&args),
        Command::Report(args) => runtime()?.block_on(report::run(args)),
        Command::Diff(args) => diff::run(&args),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Guard(args) => runtime()?.block_on(guard::run(args)),
        Command::Doctor(args) => runtime()?.block_on(doctor::run(args)),
        Command::Daemon(args) => runtime()?.block_on(daemon::run(args)),
        Command::Status(args) => runtime()?.block_on(status::run(args)),
        Command::Check(args) => runtime()?.block_on(check::run(args)),
        Command::Fleet(args) => runtime()?.block_on(fleet::run(args)),
        Command::NodePreload(args) => node_preload::run(&args),
        Command::Ack(args) => runtime()?.block_on(ack::run(args)),
    }
}
