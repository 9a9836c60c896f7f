//! Corrupt ELF files: whatever their bytes, a stack comes back and nothing panics or hangs.

use std::process::Command;
use std::rc::Rc;
use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;

use super::elf::{Elf, ElfSource};
use super::image::Image;
use super::modules::{Mapping, ModuleTable};
use super::{ProcessKey, Registers, Resolver, ResolverConfig, StackSample};

const KEY: ProcessKey = ProcessKey {
    pid: u32::MAX,
    start_time_ns: 0,
};
const STACK: u64 = 0x7ffc_0000_0000;

/// A small program with symbols, unwind tables and debug information, plain and compressed.
static PROGRAMS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| ["-g", "-gz"].map(build));

fn build(flag: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let (source, binary) = (dir.path().join("a.c"), dir.path().join("a"));
    let text = "__attribute__((noinline)) int f(int n) { return n * 3; }\n\
                int main(int argc, char **argv) { return f(argc) + f(7); }\n";
    std::fs::write(&source, text).expect("the source");
    let mut command = Command::new("gcc");
    command.args(["-O1", "-fno-PIE", "-no-pie", "-g", flag, "-o"]);
    let status = command.arg(&binary).arg(&source).status().expect("gcc");
    assert!(status.success());
    std::fs::read(&binary).expect("the program")
}

/// The addresses of the program's code, and where main returns to.
fn code_range(program: &[u8]) -> std::ops::Range<u64> {
    let source = ElfSource::Memory(Bytes::copy_from_slice(program));
    let elf = Elf::parse(&source).expect("an intact program");
    let text = elf.section(".text").expect("code");
    text.address..text.address + text.size_bytes
}

fn resolve(bytes: Vec<u8>, code: std::ops::Range<u64>, words: &[u64]) -> super::Stack {
    let mut resolver = Resolver::new(ResolverConfig {
        debug_dirs: Vec::new(),
        ..ResolverConfig::default()
    });
    let source = ElfSource::Memory(bytes.into());
    if let Ok(image) = Image::read(1, source, 1 << 20) {
        let table = ModuleTable {
            mappings: vec![Mapping::of_image(code.clone(), Rc::new(image), 0)],
        };
        resolver.insert(KEY, table);
    }
    let at = |word: u64| code.start + word % (code.end - code.start);
    // Every word may be a return address or the stack's own.
    let copy: Vec<u8> = words
        .iter()
        .flat_map(|word| match word % 4 {
            0 => (STACK + word % 512).to_le_bytes(),
            _ => at(*word).to_le_bytes(),
        })
        .collect();
    let sample = StackSample {
        registers: Registers {
            ip: at(words[0]),
            sp: STACK,
            fp: STACK + 32,
            lr: 0,
        },
        copy: copy.into(),
        bounded: true,
        interpreter: super::FrameSample::default(),
    };
    resolver.resolve(KEY, &sample)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_give_a_stack(
        which in 0usize..2,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
        header_flips in prop::collection::vec((0usize..64, any::<u8>()), 0..3),
        words in prop::collection::vec(any::<u64>(), 64),
    ) {
        let program = &PROGRAMS[which];
        let code = code_range(program);
        let mut bytes = program.clone();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for (at, byte) in header_flips {
            bytes[at] = byte;
        }
        let stack = resolve(bytes, code, &words);
        prop_assert!(stack.frames.len() <= 1024);
    }

    #[test]
    fn flipped_tables_give_a_stack(
        which in 0usize..2,
        section in prop::sample::select(vec![
            ".eh_frame", ".eh_frame_hdr", ".symtab", ".strtab", ".debug_info", ".debug_abbrev",
            ".debug_line", ".debug_str",
        ]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        words in prop::collection::vec(any::<u64>(), 64),
    ) {
        let mut bytes = PROGRAMS[which].clone();
        let code = code_range(&bytes);
        let elf = Elf::parse(&ElfSource::Memory(Bytes::copy_from_slice(&bytes))).expect("intact");
        if let Some(section) = elf.section(section) {
            for (at, byte) in flips {
                bytes[section.offset as usize + at.index(section.size_bytes as usize)] = byte;
            }
        }
        let stack = resolve(bytes, code, &words);
        prop_assert!(stack.frames.len() <= 1024);
    }

    #[test]
    fn a_file_cut_short_gives_a_stack(
        cut in any::<prop::sample::Index>(),
        words in prop::collection::vec(any::<u64>(), 64),
    ) {
        let program = &PROGRAMS[0];
        let bytes = program[..cut.index(program.len())].to_vec();
        resolve(bytes, code_range(program), &words);
    }

    #[test]
    fn any_bytes_are_an_elf_file_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Image::read(1, ElfSource::Memory(bytes.into()), 1 << 20);
    }
}

#[test]
fn the_intact_program_is_named() {
    let program = &PROGRAMS[0];
    let stack = resolve(program.clone(), code_range(program), &[0; 64]);
    let name = stack.frames[0].function.as_deref();
    assert_eq!(name, Some("_start"));
}
