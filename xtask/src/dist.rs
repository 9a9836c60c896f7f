//! `cargo xtask dist`: connleak as a Debian package in target/dist.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::workspace::Workspace;

/// What goes where, relative to the root.
const BINARY: &str = "usr/bin/connleak";
const CONFIG: &str = "etc/connleak/connleak.toml";
const UNIT: &str = "usr/lib/systemd/system/connleak.service";
const SCHEMA: &str = "usr/share/connleak/report.schema.json";
const LICENSE: &str = "usr/share/doc/connleak/copyright";
/// For other programs: not read by connleak itself.
const SHARED: [(&str, &str); 3] = [
    (
        "prometheus/connleak.rules.yml",
        "usr/share/connleak/prometheus/connleak.rules.yml",
    ),
    (
        "grafana/connleak.json",
        "usr/share/connleak/grafana/connleak.json",
    ),
    (
        "kubernetes/daemonset.yaml",
        "usr/share/connleak/kubernetes/daemonset.yaml",
    ),
];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let binary = build::run(workspace)?;
    println!("{}", package(workspace, &binary)?.display());
    Ok(())
}

pub(crate) fn package(workspace: &Workspace, binary: &Path) -> Result<PathBuf> {
    pack(&workspace.root, binary, &workspace.target.join("dist"))
}

/// Packs `binary` with everything of tracer-user/dist; the package's path.
fn pack(root: &Path, binary: &Path, dir: &Path) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let name = format!("connleak_{version}_{architecture}");
    let stage = dir.join(&name);
    if stage.exists() {
        fs::remove_dir_all(&stage)
            .with_context(|| format!("failed to remove {}", stage.display()))?;
    }
    let dist = root.join("tracer-user/dist");
    put(binary, &stage.join(BINARY), 0o755)?;
    // The line tables of our own crashes are two thirds of the binary.
    output(
        Command::new("strip")
            .arg("--strip-debug")
            .arg(stage.join(BINARY)),
    )?;
    let config = root.join("tracer-user/src/config/default.toml");
    put(&config, &stage.join(CONFIG), 0o644)?;
    put(&dist.join("connleak.service"), &stage.join(UNIT), 0o644)?;
    put(&dist.join("report.schema.json"), &stage.join(SCHEMA), 0o644)?;
    put(&root.join("LICENSE"), &stage.join(LICENSE), 0o644)?;
    for (from, to) in SHARED {
        put(&dist.join(from), &stage.join(to), 0o644)?;
    }
    for script in SCRIPTS {
        put(
            &dist.join(script),
            &stage.join("DEBIAN").join(script),
            0o755,
        )?;
    }
    let kib = fs::metadata(stage.join(BINARY))?.len() / 1024;
    let control = stage.join("DEBIAN/control");
    fs::write(&control, described(version, architecture, kib))
        .and_then(|()| fs::write(stage.join("DEBIAN/conffiles"), format!("/{CONFIG}\n")))
        .with_context(|| format!("failed to write {}", control.display()))?;
    let package = dir.join(format!("{name}.deb"));
    output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .arg(&stage)
            .arg(&package),
    )?;
    Ok(package)
}

fn described(version: &str, architecture: &str, installed_kib: u64) -> String {
    format!(
        "Package: connleak\nVersion: {version}\nArchitecture: {architecture}\n\
         Maintainer: connleak <root@localhost>\nInstalled-Size: {installed_kib}\n\
         Depends: libc6 (>= 2.36), passwd\nRecommends: systemd, dbus\nSection: admin\n\
         Priority: optional\n\
         Description: who leaks connections to Redis\n \
         Says which process, from which line of code, opened every TCP connection to\n \
         Redis that is still open, and whether it leaks; as a daemon it keeps the\n \
         thresholds and restarts the unit that leaks.\n"
    )
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let placed = || -> std::io::Result<()> {
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::copy(from, to)?;
        fs::set_permissions(to, Permissions::from_mode(mode))
    };
    placed().with_context(|| format!("failed to copy {} to {}", from.display(), to.display()))
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("failed to run {name}; this is for Debian machines"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("failed to run {name}: {}", said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_has_binary_unit_and_configuration() -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("a workspace")?;
        let dir = tempfile::tempdir()?;
        // Any ELF file stands for connleak.
        let package = pack(root, Path::new("/bin/true"), dir.path())?;
        let listing = output(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
        let shared = SHARED.map(|(_, place)| place);
        for place in [BINARY, CONFIG, UNIT, LICENSE].into_iter().chain(shared) {
            assert!(
                listing.contains(&format!("./{place}\n")),
                "{place}: {listing}"
            );
        }
        let control = output(Command::new("dpkg-deb").arg("--info").arg(&package))?;
        assert!(control.contains("Package: connleak"), "{control}");
        assert!(
            control.contains("conffiles") && control.contains("postinst"),
            "{control}"
        );
        Ok(())
    }
}
