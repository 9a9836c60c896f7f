//! Every input that once broke a target, every seed, and a few bytes of no shape at all.

use std::fs;
use std::path::{Path, PathBuf};

use connleak_fuzz::TARGETS;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn inputs_that_once_broke_a_target_break_it_no_more() {
    for (name, target) in TARGETS {
        for kept in ["regressions", "seeds"] {
            let inputs = fs::read_dir(folder(kept).join(name));
            for input in inputs.into_iter().flatten().flatten() {
                target(&fs::read(input.path()).expect("an input"));
            }
        }
        target(&[]);
        target(&[0; 4096]);
        target(&[0xff; 4096]);
    }
}

#[test]
fn a_folder_of_inputs_belongs_to_a_target() {
    for kept in ["regressions", "seeds"] {
        for entry in fs::read_dir(folder(kept)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let known = TARGETS.iter().any(|(target, _)| name == *target);
            assert!(
                known || entry.path().is_file(),
                "{kept}: {name:?} is no target"
            );
        }
    }
}
