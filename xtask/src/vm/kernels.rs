//! Debian's kernels, the newest of each series, taken out of their packages and kept in the cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::debian::{Archive, Mirrors, twice};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Series {
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    #[value(name = "7.2")]
    V7_2,
}

impl Series {
    pub(crate) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::V7_2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        }
    }

    /// What stands before and after the ABI number in the package's name.
    fn package_pattern(self) -> (&'static str, &'static str) {
        match self {
            Self::V5_10 => ("linux-image-5.10.0-", "-cloud-amd64"),
            Self::V6_1 => ("linux-image-6.1.0-", "-cloud-amd64"),
            Self::V6_12 => ("linux-image-6.12.", "+deb12-cloud-amd64"),
            // forky's linux-image-* only depends on this one.
            Self::V7_2 => ("linux-binary-7.2.", "+deb14-cloud-amd64"),
        }
    }

    fn source(self, mirrors: &Mirrors) -> String {
        match self {
            Self::V5_10 => Archive::source(&mirrors.main, "bullseye"),
            Self::V6_1 | Self::V6_12 => Archive::source(&mirrors.security, "bookworm-security"),
            Self::V7_2 => Archive::source(&mirrors.main, "forky"),
        }
    }

    /// The newest ABI: security updates raise it, and the archive drops the old one.
    fn newest<'a>(self, names: impl IntoIterator<Item = &'a String>) -> Option<&'a String> {
        let (prefix, suffix) = self.package_pattern();
        names
            .into_iter()
            .filter_map(|name| {
                let abi = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
                let abi: Vec<u32> = abi
                    .split('.')
                    .map(str::parse)
                    .collect::<Result<_, _>>()
                    .ok()?;
                Some((abi, name))
            })
            .max()
            .map(|(_, name)| name)
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) series: Series,
    pub(crate) package: String,
    pub(crate) image: PathBuf,
}

/// Fetches what the cache does not have.
pub(crate) fn fetch(wanted: &[Series], cache: &Path) -> Result<Vec<Kernel>> {
    let mirrors = Mirrors::of_this_machine()?;
    // All series, not only the wanted ones: the lists then stay the same from call to call.
    let mut sources: Vec<String> = Series::ALL.iter().map(|s| s.source(&mirrors)).collect();
    sources.dedup();
    let archive = match Archive::open(&cache.join("apt"), &sources.concat()) {
        Ok(archive) => archive,
        Err(e) => return offline(wanted, cache, e),
    };
    wanted
        .iter()
        .map(|&series| {
            let (prefix, suffix) = series.package_pattern();
            let names = archive.package_names(prefix)?;
            let package = series
                .newest(&names)
                .with_context(|| format!("failed to find a package {prefix}N{suffix}"))?;
            let image = image_path(cache, package);
            if !image.exists() {
                eprintln!("kernel {series}: fetching {package}");
                let deb = archive.download(package, &cache.join("packages"))?;
                // A package whose download broke off is unpacked to nothing, so fetch and unpack anew once.
                twice(&format!("unpack {package}"), || unpack(&deb, &image))?;
                std::fs::remove_file(&deb)?;
            }
            Ok(Kernel {
                series,
                package: package.clone(),
                image,
            })
        })
        .collect()
}

fn image_path(cache: &Path, package: &str) -> PathBuf {
    cache.join(format!("{package}.vmlinuz"))
}

/// Without a network the kernels of the last time serve.
fn offline(wanted: &[Series], cache: &Path, cause: anyhow::Error) -> Result<Vec<Kernel>> {
    let names: Vec<String> = std::fs::read_dir(cache)?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".vmlinuz")?.to_owned())
        })
        .collect();
    let kernels: Vec<Kernel> = wanted
        .iter()
        .filter_map(|&series| {
            let package = series.newest(&names)?.clone();
            let image = image_path(cache, &package);
            Some(Kernel {
                series,
                package,
                image,
            })
        })
        .collect();
    if kernels.len() < wanted.len() {
        return Err(cause);
    }
    eprintln!("{cause:#}; using the cached kernels");
    Ok(kernels)
}

/// Takes the one kernel image out of a package; appears under its name only when whole.
fn unpack(deb: &Path, image: &Path) -> Result<()> {
    let partial = image.with_extension("partial");
    let mut tar = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run dpkg-deb")?;
    let stream = tar.stdout.take().context("dpkg-deb has no output")?;
    let taken = Command::new("tar")
        .args(["-xO", "--wildcards", "*/vmlinuz*"])
        .stdin(stream)
        .stdout(std::fs::File::create(&partial)?)
        .status()
        .context("failed to run tar")?;
    let packed = tar.wait()?;
    let length_bytes = std::fs::metadata(&partial)?.len();
    if !taken.success() || !packed.success() || length_bytes == 0 {
        bail!(
            "failed to unpack {}: dpkg-deb {packed}, tar {taken}",
            deb.display()
        );
    }
    std::fs::rename(&partial, image)
        .with_context(|| format!("failed to name the kernel {}", image.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_compares_abis_as_numbers() {
        let names = ["9", "37", "4"].map(|n| format!("linux-image-6.1.0-{n}-cloud-amd64"));
        assert_eq!(Series::V6_1.newest(&names), Some(&names[1]));
    }

    #[test]
    fn newest_leaves_other_flavours_out() {
        let names = [
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.90+deb12-amd64",
            "linux-image-6.12.57+deb12-cloud-amd64-dbg",
            "linux-image-6.12.57+deb12-cloud-amd64-unsigned",
        ]
        .map(str::to_owned);
        assert_eq!(Series::V6_12.newest(&names), Some(&names[0]));
    }
}
