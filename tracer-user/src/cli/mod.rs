//! The command line: what the user asked for, and where the answer goes.

mod ack;
mod args;
mod daemon;
mod doctor;
mod output;
mod snapshot;
mod status;
mod trace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Args, Command};

/// Exit code of anything that could not be done; clap uses the same for bad arguments.
const FAILED: u8 = 2;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    // Rust ignores SIGPIPE, and a closed pipe is an error that `output` takes for success.
    let args = Args::parse();
    match dispatch(args) {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let message = crate::report::clean(&format!("{error:#}"));
            output::complain(&message);
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(args: Args) -> Result<ExitCode> {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    match args.command {
        Command::Trace(args) => runtime()?.block_on(trace::run(args)),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Doctor(args) => runtime()?.block_on(doctor::run(args)),
        Command::Daemon(args) => runtime()?.block_on(daemon::run(args)),
        Command::Status(args) => runtime()?.block_on(status::run(args)),
        Command::Ack(args) => runtime()?.block_on(ack::run(args)),
    }
}
