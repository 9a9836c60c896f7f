//! The `connleak` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    connleak::cli::run()
}
