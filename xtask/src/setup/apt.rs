//! Debian packages: which are missing, and their installation without starting a service.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Scope, Wording};
use crate::step;
use crate::workspace::{Workspace, is_root, which};

/// A machine with apt.
pub(crate) struct Debian {
    /// Debian 12's security archive has `core` precompiled for the BPF target.
    pub(crate) has_bpf_core: bool,
}

impl Debian {
    pub(crate) fn detect() -> Option<Self> {
        which("apt-get")?;
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let says = |line: &str| release.lines().any(|given| given.replace('"', "") == line);
        Some(Self {
            has_bpf_core: says("ID=debian") && says("VERSION_ID=12"),
        })
    }
}

/// A package, the least scope that needs it, and a file that serves instead of it.
struct Package {
    name: &'static str,
    scope: Scope,
    /// A machine that has this from elsewhere keeps its own.
    instead: Instead,
}

enum Instead {
    Nothing,
    Program(&'static str),
    Header(&'static str),
}

const fn package(name: &'static str, scope: Scope, instead: Instead) -> Package {
    Package {
        name,
        scope,
        instead,
    }
}

const EVERYWHERE: &[Package] = &[
    package("gcc", Scope::Demo, Instead::Program("cc")),
    // libFuzzer is C++.
    package("g++", Scope::Tests, Instead::Program("c++")),
    package(
        "redis-server",
        Scope::Demo,
        Instead::Program("redis-server"),
    ),
    package("python3", Scope::Demo, Instead::Program("python3")),
    package("libzstd-dev", Scope::Demo, Instead::Nothing),
    package("zlib1g-dev", Scope::Demo, Instead::Nothing),
    package(
        "redis-tools",
        Scope::Tests,
        Instead::Program("redis-benchmark"),
    ),
    package("iproute2", Scope::Tests, Instead::Program("ss")),
    package(
        "libhiredis-dev",
        Scope::Tests,
        Instead::Header("hiredis/hiredis.h"),
    ),
    // One client of each language for the README's table.
    package("golang-go", Scope::Tests, Instead::Program("go")),
    package(
        "golang-github-gomodule-redigo-dev",
        Scope::Tests,
        Instead::Nothing,
    ),
    package("php-cli", Scope::Tests, Instead::Program("php")),
    // Its service listens on a socket file alone.
    package("php-fpm", Scope::Tests, Instead::Nothing),
    package("php-redis", Scope::Tests, Instead::Nothing),
    package("php-predis", Scope::Tests, Instead::Nothing),
    package(
        "openjdk-17-jdk-headless",
        Scope::Tests,
        Instead::Program("jcmd"),
    ),
    package("ruby-redis", Scope::Tests, Instead::Nothing),
    package("nodejs", Scope::Tests, Instead::Program("node")),
    package("npm", Scope::Tests, Instead::Program("npm")),
    package("python3-venv", Scope::Tests, Instead::Nothing),
    package("tmux", Scope::Tests, Instead::Program("tmux")),
    package("libbpf-tools", Scope::Bench, Instead::Nothing),
    package("bpftrace", Scope::Bench, Instead::Program("bpftrace")),
    package("bpftool", Scope::Bench, Instead::Program("bpftool")),
    package("net-tools", Scope::Bench, Instead::Program("netstat")),
];

/// Each format of a report is read by a tool of its own field.
const READERS: [Package; 5] = [
    package("chromium", Scope::Tests, Instead::Program("chromium")),
    package("golang-go", Scope::Tests, Instead::Program("go")),
    package("jq", Scope::Tests, Instead::Program("jq")),
    package("libxml2-utils", Scope::Tests, Instead::Program("xmllint")),
    package("sqlite3", Scope::Tests, Instead::Program("sqlite3")),
];

/// Only where the distribution compiled `core` for the BPF target.
const KERNEL_SIDE: &[Package] = &[
    package("rustc-web", Scope::Demo, Instead::Nothing),
    package("libstd-rust-web-dev-bpf", Scope::Demo, Instead::Nothing),
    package("llvm-22-dev", Scope::Demo, Instead::Nothing),
    package("libxml2-dev", Scope::Demo, Instead::Nothing),
    // The clippy of rustc-web's release: another one cannot read its `core`.
    package("rust-web-clippy", Scope::Lint, Instead::Nothing),
];

/// What scrapes the daemon, and checks its rules.
const PROMETHEUS: Package = package("prometheus", Scope::Tests, Instead::Program("prometheus"));

impl Instead {
    fn present(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Program(name) => which(name).is_some(),
            Self::Header(name) => ["/usr/include", "/usr/local/include"]
                .iter()
                .any(|dir| Path::new(dir).join(name).is_file()),
        }
    }
}

pub(crate) fn ensure(
    debian: &Debian,
    workspace: &Workspace,
    scope: Scope,
    wording: Wording,
) -> Result<()> {
    let kernel_side: &[Package] = if debian.has_bpf_core {
        KERNEL_SIDE
    } else {
        &[]
    };
    let needed: Vec<&str> = EVERYWHERE
        .iter()
        .chain(&READERS)
        .chain(kernel_side)
        .chain([&PROMETHEUS])
        .filter(|package| package.scope <= scope && !package.instead.present())
        .map(|package| package.name)
        .collect();
    let installed = installed(&needed)?;
    let missing: Vec<&str> = needed
        .iter()
        .copied()
        .filter(|name| !installed.contains(*name))
        .collect();
    if missing.is_empty() {
        wording.found("debian packages", &format!("{} present", needed.len()));
        return Ok(());
    }
    println!("setup: installing       {}", missing.join(" "));
    let elapsed_s = install(&missing)?;
    for server in ["redis-server", "prometheus"] {
        if missing.contains(&server) {
            keep_off_at_boot(workspace, server);
        }
    }
    wording.did(
        "debian packages",
        &format!(
            "{} present, {} installed in {elapsed_s} s",
            installed.len(),
            missing.len()
        ),
    );
    Ok(())
}

fn installed(names: &[&str]) -> Result<HashSet<String>> {
    // dpkg-query exits 1 when one of the names is unknown; what it printed still counts.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(names)
        .output()
        .context("failed to run dpkg-query")?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(str::to_owned)
        .collect())
}

/// Installs the packages and returns the seconds it took.
fn install(names: &[&str]) -> Result<u64> {
    if !is_root() && which("sudo").is_none() {
        bail!(
            "failed to install packages: needs root; run: apt-get install {}",
            names.join(" ")
        );
    }
    let mut took = step::run("apt-get update", apt_get("update").arg("-qq"))?.elapsed;
    let attempt = || {
        step::run(
            "apt-get install",
            apt_get("install")
                .args(["-y", "-q", "--no-install-recommends"])
                .args(names),
        )
    };
    took += match attempt() {
        Ok(done) => done.elapsed,
        Err(error) => {
            // A mirror that was being updated refuses packages its old list names.
            eprintln!("setup: {error:#}; trying once more");
            step::run("apt-get update", apt_get("update").arg("-qq"))?;
            attempt()?.elapsed
        }
    };
    Ok(took.as_secs())
}

/// An apt-get that waits for another one's lock, asks nothing and starts no service.
fn apt_get(verb: &str) -> Command {
    let mut command = Command::new(if is_root() { "env" } else { "sudo" });
    if !is_root() {
        command.arg("env");
    }
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        "NEEDRESTART_MODE=l",
        // A private redis-server is started where one is needed; a service on :6379 would be in
        // its way. The first stops systemctl in maintainer scripts, the second sysvinit's.
        // Variables end with apt-get: nothing is left behind when it is interrupted.
        "SYSTEMD_OFFLINE=1",
        "RUNLEVEL=1",
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=600",
        "-o",
        "Acquire::Retries=2",
        verb,
    ]);
    command
}

/// The package enables its unit; a machine that only builds connleak must not serve at boot.
fn keep_off_at_boot(workspace: &Workspace, server: &str) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    let unit = format!("{server}.service");
    let mut disable = Command::new(if is_root() { "systemctl" } else { "sudo" });
    if !is_root() {
        disable.arg("systemctl");
    }
    disable.current_dir(&workspace.root);
    disable.args(["--quiet", "disable", &unit]);
    if !disable.status().is_ok_and(|status| status.success()) {
        eprintln!("setup: failed to disable {unit}: it starts at the next boot");
    }
}
