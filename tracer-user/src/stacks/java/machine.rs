//! The virtual machine of one process: found by its library, described by itself.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::elf::i32_at;
use super::super::known_files::KnownFiles;
use super::super::looked::Looked;
use super::super::memory::Memory;
use super::super::modules::{Code, Mapping, ModuleTable, open_mapped};
use super::code_cache::{Heap, heaps};
use super::layout::{Layout, STRUCTS, VERSIONS, WITH_VIRTUAL_THREADS_IN_PREVIEW};
use super::tables::{Symbols, Tables};

/// What a file must be called to be looked at.
const LIBRARY: &str = "libjvm.so";

/// One that never comes up is not looked at for every stack, and after each look less often.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(2);
/// One that is just starting has not all of its tables in place: what refuses it then may not be so
/// for good.
const REFUSALS_MAX: u32 = 5;

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
    NotYet(NextLook),
    Known(Box<Machine>),
    /// One that connleak cannot read, and why; without a next look, for good.
    Refused(String, Option<NextLook>),
}

/// When a JVM is looked at again.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct NextLook {
    at: Instant,
    pause: Duration,
    /// How often it was refused before.
    refusals: u32,
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
            Self::Refused(cause, _) => Some(cause),
            Self::NotYet(_) => Some("its JVM was not up yet"),
            Self::None | Self::Known(_) => None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        match self {
            Self::None => true,
            Self::NotYet(next) | Self::Refused(_, Some(next)) => now >= next.at,
            Self::Known(_) | Self::Refused(_, None) => false,
        }
    }

    /// Takes in what a look at it found.
    fn learn(&mut self, looked: Looked<Machine>, now: Instant) {
        let next = match self {
            Self::NotYet(last) | Self::Refused(_, Some(last)) => last.after(now),
            _ => NextLook::first(now),
        };
        *self = match looked {
            Looked::Found(machine) => Self::Known(Box::new(machine)),
            Looked::Refused(cause) => Self::Refused(cause, next.refused()),
            _ => Self::NotYet(next),
        };
    }
}

impl NextLook {
    fn first(now: Instant) -> Self {
        Self {
            at: now + LOOK_PAUSE,
            pause: LOOK_PAUSE,
            refusals: 0,
        }
    }

    fn after(self, now: Instant) -> Self {
        let pause = LOOK_PAUSE_MAX.min(self.pause * 2);
        Self {
            at: now + pause,
            pause,
            ..self
        }
    }

    /// `None` after the last.
    fn refused(self) -> Option<Self> {
        let refusals = self.refusals + 1;
        (refusals < REFUSALS_MAX).then_some(Self { refusals, ..self })
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
        let now = Instant::now();
        if !jvm.is_due(now) {
            return;
        }
        let mut mappings = table.mappings.iter();
        let library = mappings.find(|mapping| mapping.file_name() == LIBRARY);
        let Some(library) = library else {
            return;
        };
        let process_dir = proc_root.join(pid.to_string());
        jvm.learn(self.look_at(pid, &process_dir, library), now);
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

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;
    use super::*;

    fn refused() -> Looked<Machine> {
        Looked::Refused("it does not describe itself".to_owned())
    }

    /// Whether a look at it is due by then.
    fn is_due_after(jvm: &Jvm, now: Instant, pause: Duration) -> bool {
        !jvm.is_due(now) && jvm.is_due(now + pause)
    }

    #[test]
    fn a_jvm_that_cannot_be_read_is_looked_at_again_and_then_no_more() {
        let mut now = Instant::now();
        let mut jvm = Jvm::default();
        for _ in 1..REFUSALS_MAX {
            jvm.learn(refused(), now);
            assert_eq!(jvm.lack(), Some("it does not describe itself"));
            assert!(is_due_after(&jvm, now, LOOK_PAUSE_MAX));
            now += LOOK_PAUSE_MAX;
        }
        jvm.learn(refused(), now);
        assert!(!jvm.is_due(now + Duration::from_secs(3_600)));
        assert_eq!(jvm.lack(), Some("it does not describe itself"));
    }

    #[test]
    fn a_jvm_that_starts_is_not_refused_for_good_however_long_it_takes() {
        let mut now = Instant::now();
        let mut jvm = Jvm::default();
        for _ in 0..100 {
            jvm.learn(Looked::NotYet, now);
            assert!(is_due_after(&jvm, now, LOOK_PAUSE_MAX));
            now += LOOK_PAUSE_MAX;
        }
        jvm.learn(refused(), now);
        assert!(is_due_after(&jvm, now, LOOK_PAUSE_MAX));
    }

    #[test]
    fn tables_that_are_in_place_by_the_second_look_are_read() {
        let now = Instant::now();
        let mut jvm = Jvm::default();
        let mut scene = Scene::new();
        let fields = scene.bytes[..8].to_vec();
        scene.word(0, 0);
        jvm.learn(scene.find(), now);
        let cause = "libjvm.so does not describe itself";
        assert_eq!(jvm.lack(), Some(cause));
        scene.put(0, &fields);
        assert!(is_due_after(&jvm, now, LOOK_PAUSE));
        jvm.learn(scene.find(), now + LOOK_PAUSE);
        assert!(jvm.machine().is_some() && jvm.lack().is_none());
    }
}
