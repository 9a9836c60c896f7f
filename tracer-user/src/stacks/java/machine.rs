//! The virtual machine of one process: found by its library, described by itself.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::elf::i32_at;
use super::super::known_files::KnownFiles;
use super::super::modules::{Code, Mapping, ModuleTable, open_mapped};
use super::super::python::{Looked, Memory};
use super::code_cache::{Heap, heaps};
use super::layout::{Layout, STRUCTS, VERSIONS, WITH_VIRTUAL_THREADS_IN_PREVIEW};
use super::tables::{Symbols, Tables};

/// What a file must be called to be looked at.
const LIBRARY: &str = "libjvm.so";

/// One that never comes up is not looked at for every stack, and after each look less often.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A JVM whose structs and code are known.
#[derive(Debug)]
pub(in super::super) struct Machine {
    pub(super) pid: u32,
    pub(super) memory: Memory,
    pub(super) layout: Layout,
    pub(super) heaps: Vec<Heap>,
}

/// What is known of a process's JVM.
#[derive(Debug, Default)]
pub(in super::super) enum Jvm {
    #[default]
    None,
    /// Mapped, and not up when it was looked at.
    NotYet {
        again_at: Instant,
        pause: Duration,
    },
    Known(Box<Machine>),
    /// One that connleak cannot read, and why.
    Refused(String),
}

impl Jvm {
    pub(in super::super) fn machine(&self) -> Option<&Machine> {
        match self {
            Self::Known(machine) => Some(machine),
            _ => None,
        }
    }

    /// Why its frames have no names.
    pub(in super::super) fn lack(&self) -> Option<&str> {
        match self {
            Self::Refused(cause) => Some(cause),
            Self::NotYet { .. } => Some("its JVM was not up yet"),
            Self::None | Self::Known(_) => None,
        }
    }
}

/// Remembers the symbols of the libraries it has seen.
#[derive(Default)]
pub(in super::super) struct Discovery {
    files: KnownFiles<Symbols>,
}

impl Discovery {
    /// Looks at the JVM of a process, unless that is known already.
    pub(in super::super) fn look(
        &mut self,
        proc_root: &Path,
        pid: u32,
        table: &ModuleTable,
        jvm: &mut Jvm,
    ) {
        let pause = match jvm {
            Jvm::Known(_) | Jvm::Refused(_) => return,
            Jvm::NotYet { again_at, .. } if Instant::now() < *again_at => return,
            Jvm::NotYet { pause, .. } => LOOK_PAUSE_MAX.min(*pause * 2),
            Jvm::None => LOOK_PAUSE,
        };
        let mut mappings = table.mappings.iter();
        let library = mappings.find(|mapping| mapping.file_name() == LIBRARY);
        let Some(library) = library else {
            return;
        };
        let process_dir = proc_root.join(pid.to_string());
        *jvm = match self.look_at(pid, &process_dir, library) {
            Looked::Found(machine) => Jvm::Known(Box::new(machine)),
            Looked::Refused(cause) => Jvm::Refused(cause),
            _ => Jvm::NotYet {
                again_at: Instant::now() + pause,
                pause,
            },
        };
    }

    fn look_at(&mut self, pid: u32, process_dir: &Path, library: &Mapping) -> Looked<Machine> {
        if cfg!(not(target_arch = "x86_64")) {
            return Looked::Refused("its frames are known on x86_64 only".to_owned());
        }
        let Code::Image { bias, .. } = &library.code else {
            return Looked::Refused(format!("{LIBRARY} is no ELF file that can be read"));
        };
        match self.symbols(process_dir, library) {
            Some(symbols) => find(pid, &symbols, *bias),
            None => Looked::Refused(format!("{LIBRARY} does not describe itself")),
        }
    }

    fn symbols(&mut self, process_dir: &Path, library: &Mapping) -> Option<Rc<Symbols>> {
        let file = open_mapped(process_dir, library).ok()?;
        self.files.get(file, Symbols::read)
    }
}

pub(super) fn find(pid: u32, symbols: &Symbols, bias: u64) -> Looked<Machine> {
    let memory = Memory::of(pid);
    let Some(tables) = Tables::read(memory, symbols, bias, STRUCTS) else {
        return Looked::Refused(format!("{LIBRARY} does not describe itself"));
    };
    let version = tables.address("Abstract_VM_Version", "_vm_major_version");
    let version = match version.map(|at| memory.read(at, 4)) {
        Ok(Some(version)) => i32_at(&version, 0),
        Ok(None) => return Looked::NotYet,
        Err(untold) => return Looked::Refused(untold.to_string()),
    };
    // It is set when the JVM starts.
    if version == 0 {
        return Looked::NotYet;
    }
    if !VERSIONS.contains(&version) || WITH_VIRTUAL_THREADS_IN_PREVIEW.contains(&version) {
        return Looked::Refused(format!("JDK {version} is not supported"));
    }
    let layout = match Layout::of(&tables, version) {
        Ok(layout) => layout,
        Err(untold) => return Looked::Refused(untold.to_string()),
    };
    match heaps(memory, &layout) {
        Some(heaps) => Looked::Found(Machine {
            pid,
            memory,
            layout,
            heaps,
        }),
        None => Looked::NotYet,
    }
}

impl Machine {
    /// Whether `pc` lies where the JVM puts its code.
    pub(in super::super) fn has_code(&self, pc: u64) -> bool {
        self.heaps.iter().any(|heap| heap.contains(pc))
    }
}
