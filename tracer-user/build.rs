//! Places the built kernel side where `kernel::load` embeds it.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=CONNLEAK_BPF_OBJECT");
    let object = env::var_os("CONNLEAK_BPF_OBJECT").map_or_else(
        || PathBuf::from("../target/bpf/connleak.bpf.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    let Some(out_dir) = env::var_os("OUT_DIR") else {
        println!("cargo::error=OUT_DIR is not set: build with cargo");
        return;
    };
    let embedded = PathBuf::from(out_dir).join("connleak.bpf.o");
    if let Err(error) = fs::copy(&object, embedded) {
        println!(
            "cargo::error=failed to read the kernel side {}: {error}; run `cargo xtask build` once",
            object.display()
        );
    }
}
