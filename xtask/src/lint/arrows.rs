//! The import arrows: every path a room names is held against the table of rooms.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::rooms::{CRATES, GIVEN, IMPURE_STD, PURE, ROOMS, Sees};
use super::source::{NamedPath, named_paths, test_modules};
use super::{read, rust_files};

/// A path that goes against an arrow.
#[derive(Debug)]
pub(super) struct Violation {
    file: String,
    line: usize,
    says: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.says)
    }
}

/// Checks every source of both sides.
pub(super) fn check(root: &Path) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    let user = root.join("tracer-user/src");
    let dependencies = dependencies(&read(&root.join("tracer-user/Cargo.toml"))?);
    let mut sources = Vec::new();
    let mut tests = Vec::new();
    for path in rust_files(&user)? {
        let module = module_path(path.strip_prefix(&user)?);
        let source = read(&path)?;
        for name in test_modules(&source) {
            let mut test = module.clone();
            test.push(name);
            tests.push(test);
        }
        sources.push((path, module, source));
    }
    for (path, module, source) in sources {
        if tests.iter().any(|test| module.starts_with(test)) {
            continue;
        }
        let file = path.strip_prefix(root)?.display().to_string();
        let unknown = module
            .first()
            .is_some_and(|room| room != "bin" && !ROOMS.iter().any(|(name, _)| name == room));
        if unknown {
            violations.push(Violation {
                file,
                line: 1,
                says: format!(
                    "{} has no arrows: give it a row in xtask/src/lint/rooms.rs",
                    module[0]
                ),
            });
            continue;
        }
        let found = check_user(&module, &source, &dependencies);
        violations.extend(found.into_iter().map(|(line, says)| Violation {
            file: file.clone(),
            line,
            says,
        }));
    }
    let programs = root.join("tracer-ebpf/src/programs");
    if fs::exists(&programs)? {
        for path in rust_files(&programs)? {
            let mut module = vec!["programs".to_owned()];
            module.extend(module_path(path.strip_prefix(&programs)?));
            let file = path.strip_prefix(root)?.display().to_string();
            let is_program = |name: &str| {
                programs.join(name).is_dir() || programs.join(name).with_extension("rs").is_file()
            };
            let found = check_program(&module, &read(&path)?, is_program);
            violations.extend(found.into_iter().map(|(line, says)| Violation {
                file: file.clone(),
                line,
                says,
            }));
        }
    }
    Ok(violations)
}

/// `sockets/table.rs` is `["sockets", "table"]`; `mod.rs`, `lib.rs` and `main.rs` add nothing.
fn module_path(file: &Path) -> Vec<String> {
    let mut module: Vec<String> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// The path from the crate's root, if it stays in the crate.
fn from_root(module: &[String], path: &NamedPath) -> Option<Vec<String>> {
    let first = path.segments.first()?;
    let supers = path.segments.iter().take_while(|s| *s == "super").count();
    match first.as_str() {
        "crate" => Some(path.segments[1..].to_vec()),
        "super" => {
            let above = module.len().checked_sub(supers)?;
            let mut full = module[..above].to_vec();
            full.extend_from_slice(&path.segments[supers..]);
            Some(full)
        }
        _ => None,
    }
}

fn check_user(module: &[String], source: &str, dependencies: &[String]) -> Vec<(usize, String)> {
    let Some(room) = module.first() else {
        // lib.rs and main.rs only declare and start.
        return Vec::new();
    };
    let Some((_, sees)) = ROOMS.iter().find(|(name, _)| name == room) else {
        return Vec::new();
    };
    let pure = PURE.iter().find(|(name, _)| name == room);
    let mut violations = Vec::new();
    for path in named_paths(source) {
        let Some(first) = path.segments.first() else {
            continue;
        };
        if let Some(full) = from_root(module, &path) {
            let Some(target) = full.first() else { continue };
            let is_room = ROOMS.iter().any(|(name, _)| name == target);
            let allowed = match sees {
                Sees::All => true,
                Sees::Only(rooms) => {
                    let given = pure.is_none() && GIVEN.contains(&target.as_str());
                    given || target == room || rooms.contains(&target.as_str())
                }
            };
            if is_room && !allowed {
                violations.push((
                    path.line,
                    format!(
                        "{room} must not import crate::{target} (arrows: {})",
                        arrows_of(room, sees)
                    ),
                ));
            }
            continue;
        }
        if path.segments.len() == 1 && !path.imported {
            continue;
        }
        let exclusive = CRATES.iter().find(|(name, _)| name == first);
        if let Some((name, rooms)) = exclusive
            && !rooms.contains(&room.as_str())
        {
            let says = format!("{room} must not import {name} (only {})", rooms.join(", "));
            violations.push((path.line, says));
            continue;
        }
        let Some((_, crates)) = pure else { continue };
        let foreign = dependencies.contains(first) && !crates.contains(&first.as_str());
        let impure = first == "std"
            && path
                .segments
                .get(1)
                .is_some_and(|part| IMPURE_STD.contains(&part.as_str()));
        if foreign || impure {
            violations.push((
                path.line,
                format!(
                    "{room} is pure and must not import {} (only {}; of std nothing that acts)",
                    path.segments.join("::"),
                    crates.join(", ")
                ),
            ));
        }
    }
    violations
}

fn arrows_of(room: &str, sees: &Sees) -> String {
    match sees {
        Sees::All => format!("{room} -> all"),
        Sees::Only([]) => format!("{room} -> nothing"),
        Sees::Only(rooms) => format!("{room} -> {}", rooms.join(", ")),
    }
}

/// Programs of the kernel side share maps, filters and readers, never each other.
fn check_program(
    module: &[String],
    source: &str,
    is_program: impl Fn(&str) -> bool,
) -> Vec<(usize, String)> {
    let Some(own) = module.get(1) else {
        return Vec::new();
    };
    let mut violations = Vec::new();
    for path in named_paths(source) {
        let Some(full) = from_root(module, &path) else {
            continue;
        };
        if let [programs, other, ..] = full.as_slice()
            && programs == "programs"
            && other != own
            && is_program(other)
        {
            violations.push((
                path.line,
                format!("programs never import each other: {own} must not import {other}"),
            ));
        }
    }
    violations
}

/// The names under `[dependencies]`, as paths write them.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut here = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            here = line == "[dependencies]";
        } else if here && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            names.push(name.trim().replace('-', "_"));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(file: &str, source: &str) -> Vec<(usize, String)> {
        let dependencies = ["tokio".to_owned(), "serde".to_owned(), "aya".to_owned()];
        check_user(&module_path(Path::new(file)), source, &dependencies)
    }

    #[test]
    fn a_stage_does_not_see_later_stages() {
        let found = user(
            "policy/machine.rs",
            "\nuse crate::{policy::Level, action::Restart};",
        );
        assert_eq!(
            found,
            [(
                2,
                "policy must not import crate::action (arrows: policy -> config)".to_owned()
            )]
        );
    }

    #[test]
    fn super_leaves_the_room_only_along_an_arrow() {
        assert!(user("policy/machine.rs", "use super::level::Level;").is_empty());
        assert_eq!(
            user("policy/machine.rs", "use super::super::action;").len(),
            1
        );
        assert_eq!(user("policy/mod.rs", "use super::action::X;").len(), 1);
    }

    #[test]
    fn inline_paths_count_as_imports() {
        assert_eq!(
            user("decode/event.rs", "fn f() { crate::sockets::seed() }").len(),
            1
        );
    }

    #[test]
    fn only_the_kernel_room_names_aya() {
        assert!(user("kernel/load.rs", "use aya::Ebpf;").is_empty());
        let found = user("daemon/run.rs", "use aya::Ebpf;");
        assert_eq!(
            found,
            [(1, "daemon must not import aya (only kernel)".to_owned())]
        );
        assert_eq!(user("sockets/seed.rs", "use tracer_ebpf::Event;").len(), 1);
        assert!(user("decode/event.rs", "use tracer_ebpf::Event;").is_empty());
    }

    #[test]
    fn policy_is_pure() {
        assert!(
            user(
                "policy/level.rs",
                "use std::time::Duration; use serde::Serialize;"
            )
            .is_empty()
        );
        assert_eq!(user("policy/level.rs", "use tokio::time;").len(), 1);
        assert_eq!(user("policy/level.rs", "use std::fs;").len(), 1);
        assert_eq!(
            user("policy/level.rs", "fn f() { std::env::var(\"X\"); }").len(),
            1
        );
    }

    #[test]
    fn tests_may_look_anywhere() {
        let source = "#[cfg(test)]\nmod tests { use crate::action::X; }";
        assert!(user("policy/level.rs", source).is_empty());
    }

    #[test]
    fn programs_do_not_import_each_other() {
        let close = |source| {
            let module = ["programs".to_owned(), "close".to_owned()];
            check_program(&module, source, |name| ["connect", "state"].contains(&name))
        };
        assert_eq!(close("use super::connect::opener;").len(), 1);
        assert_eq!(close("use crate::programs::state::X;").len(), 1);
        assert!(close("use crate::maps::SOCKETS; use super::done;").is_empty());
    }

    #[test]
    fn arrows_make_no_circle() {
        fn reaches(from: &str, to: &str, depth: usize) -> bool {
            let sees = ROOMS.iter().find(|(room, _)| *room == from);
            let Some((_, Sees::Only(rooms))) = sees else {
                return false;
            };
            depth > 0
                && rooms
                    .iter()
                    .any(|room| *room == to || reaches(room, to, depth - 1))
        }
        for (room, _) in &ROOMS {
            assert!(!reaches(room, room, ROOMS.len()), "{room} sees itself");
        }
    }

    #[test]
    fn every_arrow_points_to_a_room() {
        for (room, sees) in &ROOMS {
            if let Sees::Only(rooms) = sees {
                for target in *rooms {
                    assert!(
                        ROOMS.iter().any(|(name, _)| name == target),
                        "{room} -> {target}"
                    );
                }
            }
        }
    }

    #[test]
    fn dependencies_are_read_as_paths_write_them() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\naya-log.workspace = true\nbtf-rs = \"2\"\n[lints]\nworkspace = true\n";
        assert_eq!(dependencies(manifest), ["aya_log", "btf_rs"]);
    }
}
