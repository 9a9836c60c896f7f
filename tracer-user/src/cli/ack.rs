//! `connleak ack`: a person has looked, the daemon may act again.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::{args::ControlArgs, output, status::socket};
use crate::daemon::{Answer, Request, ask};

pub(super) async fn run(args: ControlArgs) -> Result<ExitCode> {
    let text = match ask(&socket(&args)?, Request::Ack).await? {
        Answer::Acked { was_manual: true } => "MANUAL is over, the daemon acts again\n",
        Answer::Acked { was_manual: false } => {
            "it was not MANUAL; the counts of failures start anew\n"
        }
        Answer::Error { message } => bail!("failed to acknowledge: {message}"),
        other => bail!("failed to understand the daemon's answer {other:?}; is it this version?"),
    };
    output::print(text)?;
    Ok(ExitCode::SUCCESS)
}
