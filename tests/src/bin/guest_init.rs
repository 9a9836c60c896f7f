//! PID 1 of a test machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        // It kills every process it can reach when a test is over.
        eprintln!("guest_init: refusing to run: it is PID 1 of a test machine and nothing else");
        return ExitCode::from(2);
    }
    match connleak_tests::guest::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("guest_init: {e:#}");
            ExitCode::FAILURE
        }
    }
}
