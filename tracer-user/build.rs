//! Places the built kernel side where `kernel::load` embeds it: whole, and the iterators alone.

use std::{env, error::Error, fs, path::Path, path::PathBuf};

use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// Sections that programs need besides their own. Not their types (`.BTF`): aya and the kernel would
/// check those first, and the iterators need none.
const OF_ALL_PROGRAMS: [&str; 8] = [
    "",
    ".symtab",
    ".strtab",
    ".shstrtab",
    ".text",
    ".rodata",
    "license",
    "maps",
];

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
    if let Err(error) = embed(&object, Path::new(&out_dir)) {
        println!(
            "cargo::error=failed to read the kernel side {}: {error}; run `cargo xtask build` once",
            object.display()
        );
    }
}

fn embed(object: &Path, out_dir: &Path) -> Result<(), Box<dyn Error>> {
    let object = fs::read(object)?;
    // Of debug information only the BTF is ever read.
    let whole = sections(&object, |name| !name.starts_with(".debug"))?;
    fs::write(out_dir.join("connleak.bpf.o"), whole)?;
    // A snapshot loads nothing else: reading all programs would take longer than loading these.
    let walks = sections(&object, |name| {
        OF_ALL_PROGRAMS.contains(&name) || name.starts_with("iter/")
    })?;
    fs::write(out_dir.join("walks.bpf.o"), walks)?;
    Ok(())
}

/// The object with those of its sections, and of their relocations, that are `kept`.
fn sections(object: &[u8], kept: impl Fn(&str) -> bool) -> Result<Vec<u8>, object::build::Error> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete = !kept(name.strip_prefix(".rel").unwrap_or(&name));
    }
    builder.delete_orphans();
    // bpf-linker has one table for all names; it is written as two.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut bytes = Vec::new();
    builder.write(&mut bytes)?;
    Ok(bytes)
}
