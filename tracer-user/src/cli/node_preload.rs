//! `connleak node-preload`: the file with which Node tells who wanted a connection.

use std::process::ExitCode;

use anyhow::Result;

use super::{args::NodePreloadArgs, output};
use crate::stacks;

pub(super) fn run(args: &NodePreloadArgs) -> Result<ExitCode> {
    output::print(&stacks::node_preload(&args.ports.ports))?;
    Ok(ExitCode::SUCCESS)
}
