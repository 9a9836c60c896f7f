//! PID 1 of a test machine, or with the argument `service` a service under the machine's own PID 1.

use std::process::ExitCode;

use connleak_tests::guest::{Role, run};

fn main() -> ExitCode {
    let role = match std::env::args().nth(1).as_deref() {
        _ if std::process::id() == 1 => Role::Init,
        Some("service")
            if std::path::Path::new(connleak_tests::guest::protocol::PLAN_PATH).exists() =>
        {
            Role::Service
        }
        _ => {
            // It switches the machine off.
            eprintln!("guest_init: refusing to run: it belongs into a test machine");
            return ExitCode::from(2);
        }
    };
    match run(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("guest_init: {e:#}");
            ExitCode::FAILURE
        }
    }
}
