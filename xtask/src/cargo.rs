//! A cargo of our own inside the cargo that runs us, without what the outer one put in the environment.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::workspace::Workspace;

/// Settings of the person, not of the outer build: they stay.
const KEPT: [&str; 9] = [
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_JOBS",
    "CARGO_INCREMENTAL",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTRY_",
    "CARGO_REGISTRIES_",
    "CARGO_TERM_",
];

/// Each would make an inner build use another compiler or other flags than its verb says.
const DROPPED: [&str; 10] = [
    "CARGO",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUST_RECURSION_COUNT",
];

/// The cargo that runs us, in the workspace's root.
pub(crate) fn command(workspace: &Workspace) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&workspace.root);
    scrub(&mut command, workspace);
    command
}

/// Takes the outer cargo's variables out of a command's environment.
pub(crate) fn scrub(command: &mut Command, workspace: &Workspace) {
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let kept = KEPT.iter().any(|kept| name.starts_with(kept));
        if DROPPED.contains(&name) || (name.starts_with("CARGO_") && !kept) {
            command.env_remove(name);
        }
    }
    if let Some(paths) = env::var_os("LD_LIBRARY_PATH") {
        // cargo run prepends its own toolchain's libraries; another rustc must not see them.
        let own = |path: &Path| {
            path.starts_with(&workspace.target) || path.to_string_lossy().contains("/toolchains/")
        };
        let foreign: Vec<_> = env::split_paths(&paths).filter(|path| !own(path)).collect();
        match env::join_paths(&foreign) {
            Ok(paths) if !paths.is_empty() => command.env("LD_LIBRARY_PATH", paths),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
}
