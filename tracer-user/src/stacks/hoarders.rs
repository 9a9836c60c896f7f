//! Processes that map and write as much as they like: what is held of them stays within its bounds.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::images::{ImageBounds, ImageStore};
use super::modules::{Code, ModuleTable};
use super::{FrameSample, ProcessKey, Registers, Resolver, ResolverConfig, Stack, StackSample};

const MIB: u64 = 1 << 20;
const CODE: u64 = 0x7f00_0000_0000;
const PAGE: u64 = 4096;
/// Some 100 KiB of headers, once they are read.
const SECTIONS: u16 = 1_000;

/// An ELF file of one segment, whose section table is all that it has.
fn library() -> Vec<u8> {
    let mut file = vec![0_u8; 64 + 56 + usize::from(SECTIONS) * 64];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(18, &62_u16.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(40, &120_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(58, &64_u16.to_le_bytes());
    put(60, &SECTIONS.to_le_bytes());
    // One segment to load and execute, a page long.
    put(64, &1_u32.to_le_bytes());
    put(68, &5_u32.to_le_bytes());
    put(96, &PAGE.to_le_bytes());
    file
}

/// A process as /proc shows it, which maps `libraries` files of its own, and a page without file.
fn process(proc_root: &Path, pid: u32, libraries: u64) {
    let dir = proc_root.join(pid.to_string());
    fs::create_dir_all(dir.join("root/tmp")).expect("folders");
    let mut maps = format!("{CODE:x}-{:x} r-xp 00000000 00:00 0 \n", CODE + PAGE);
    for number in 1..=libraries {
        let path = dir.join(format!("root/lib{number}"));
        fs::write(&path, library()).expect("a library");
        let of = fs::metadata(&path).expect("it was written");
        let (major, minor) = (libc::major(of.dev()), libc::minor(of.dev()));
        let start = CODE + number * PAGE;
        let (end, inode) = (start + PAGE, of.ino());
        writeln!(
            maps,
            "{start:x}-{end:x} r-xp 00000000 {major:02x}:{minor:02x} {inode} /lib{number}"
        )
        .expect("text grows");
    }
    fs::write(dir.join("maps"), maps).expect("maps");
    fs::write(dir.join("status"), format!("NSpid:\t{pid}\n")).expect("a status");
    let zeroes = "0 ".repeat(30);
    fs::write(dir.join("stat"), format!("{pid} (p) S {zeroes}")).expect("a stat");
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start_time_ns: 0,
    }
}

/// The stack of a call from the page without file.
fn resolve(resolver: &mut Resolver, pid: u32) -> Stack {
    let sample = StackSample {
        registers: Registers {
            ip: CODE + 8,
            sp: 8,
            fp: 0,
            lr: 0,
        },
        copy: vec![0; 64].into(),
        bounded: false,
        interpreter: FrameSample::default(),
    };
    resolver.resolve(key(pid), &sample)
}

#[test]
fn one_process_gets_its_share_of_the_tables_and_the_rest_says_so() {
    let proc_root = tempfile::tempdir().expect("a folder");
    process(proc_root.path(), 7, 40);
    let mut images = ImageStore::new(ImageBounds {
        images: 8,
        tables_bytes: MIB,
        names_bytes: 0,
        section_bytes: MIB,
    });
    let known = ModuleTable::default();
    let table = ModuleTable::read(proc_root.path(), 7, &mut images, &known).expect("a table");
    assert_eq!(table.mappings.len(), 41);
    let read = |code: &Code| matches!(code, Code::Image { .. });
    let count = table.mappings.iter().filter(|m| read(&m.code)).count();
    assert!((2..10).contains(&count), "{count} files are held");
    let last = table.mappings.last().map(|mapping| &mapping.code);
    let Some(Code::Unreadable(why)) = last else {
        panic!("the last file is held too");
    };
    assert!(why.contains("unwind tables of its process"), "{why}");
    // Its share is half, and one more file stands where it was refused.
    assert!(images.held_bytes() <= MIB, "{}", images.held_bytes());
}

#[test]
fn processes_make_room_for_each_other() {
    let proc_root = tempfile::tempdir().expect("a folder");
    let mut resolver = Resolver::new(ResolverConfig {
        proc_root: proc_root.path().to_owned(),
        images: 1_000,
        tables_bytes: MIB,
        ..ResolverConfig::default()
    });
    for pid in 1..40 {
        process(proc_root.path(), pid, 4);
        resolver.observe(key(pid));
        assert!(resolver.held_bytes() <= 2 * MIB);
        // Ended by now: what was read of it is all there is.
        fs::remove_dir_all(proc_root.path().join(pid.to_string())).expect("it goes");
        assert_eq!(resolve(&mut resolver, pid).frames.len(), 1, "{pid}");
    }
    let forgotten = resolve(&mut resolver, 1);
    assert!(forgotten.frames.is_empty() && forgotten.note.is_some());
}

#[test]
fn perf_maps_of_all_processes_together_stay_within_the_bound() {
    let proc_root = tempfile::tempdir().expect("a folder");
    let bound_bytes = 4 * MIB as usize;
    let mut resolver = Resolver::new(ResolverConfig {
        proc_root: proc_root.path().to_owned(),
        processes_bytes: bound_bytes,
        ..ResolverConfig::default()
    });
    // About 1 MiB each.
    let mut map = format!("{CODE:x} 1000 Orders.getClient\n");
    for number in 1..11_000_u64 {
        writeln!(map, "{number:x}0 8 {number:040}").expect("text grows");
    }
    for pid in 1..20 {
        process(proc_root.path(), pid, 0);
        let place = proc_root
            .path()
            .join(format!("{pid}/root/tmp/perf-{pid}.map"));
        fs::write(place, &map).expect("a perf map");
        let stack = resolve(&mut resolver, pid);
        let name = stack.frames[0].function.as_deref();
        assert_eq!(name, Some("Orders.getClient"), "{stack:#?}");
        let held_bytes = resolver.held_bytes();
        assert!(held_bytes <= bound_bytes as u64, "{held_bytes}");
        assert!(held_bytes >= MIB * u64::from(pid.min(3)), "{held_bytes}");
    }
}
