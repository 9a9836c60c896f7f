//! Everything that is done to connleak, one file a verb.
#![expect(
    clippy::print_stdout,
    reason = "a developer's command: words go to the terminal"
)]

mod bench;
mod build;
mod cargo;
mod debian;
mod demo;
mod dist;
mod fuzz;
mod languages;
mod lint;
mod run;
mod setup;
mod step;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::setup::Scope;
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what building and testing need; safe to repeat
    Setup,
    /// Build the kernel object, then connleak and its test clients, in release
    Build,
    /// Build, then run connleak with these arguments (through sudo when not root)
    Run(run::Args),
    /// Set up, build, run every test
    Test(test::Args),
    /// Print what connleak costs on this machine: figures, no verdict
    Bench(bench::Args),
    /// Fuzz the parsers of hostile input
    Fuzz(fuzz::Args),
    /// Run the kernel tests on other kernels, in virtual machines
    VmTest(vm::Args),
    /// Formatting, clippy on both sides, the import arrows
    Lint,
    /// Run every language's client and write what the report shows into the README
    Languages,
    /// Build a Debian package in target/dist
    Dist,
    /// Trace a leaking client on a private redis-server and print the report
    Demo(demo::Args),
    /// Draw `connleak top` over the demo's client into the README's picture
    Screenshot,
}

fn main() -> ExitCode {
    if let Some(code) = fuzz::compiler::wrap() {
        return code;
    }
    let verb = Args::parse().verb;
    let done = Workspace::find().and_then(|workspace| match verb {
        Verb::Setup => setup::run(&workspace, Scope::Lint, setup::Wording::Every).map(succeeded),
        Verb::Build => build::run(&workspace).map(succeeded),
        Verb::Run(args) => run::run(&workspace, &args),
        Verb::Test(args) => test::run(&workspace, &args),
        Verb::Bench(args) => bench::run(&workspace, &args).map(succeeded),
        Verb::Fuzz(args) => fuzz::run(&workspace, &args),
        Verb::VmTest(args) => vm::run(&workspace, &args),
        Verb::Lint => lint::run(&workspace),
        Verb::Languages => languages::run(&workspace),
        Verb::Dist => dist::run(&workspace).map(succeeded),
        Verb::Demo(args) => demo::run(&workspace, &args),
        Verb::Screenshot => demo::screenshot::run(&workspace).map(succeeded),
    });
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

fn succeeded<T>(_: T) -> ExitCode {
    ExitCode::SUCCESS
}
