//! The resolver: turns what the kernel side took at connect into named stacks, from /proc alone.

#[cfg(test)]
mod jvm_tests;
mod name;

use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::cache::NameCache;
use super::images::{ImageBounds, ImageStore};
use super::java;
use super::modules::ModuleTable;
use super::packed::PackBounds;
use super::perfmap::PerfMap;
use super::symbolize::NameSources;
use super::unwind::{ProcessUnwinder, Stop, Walk};
use super::{ProcessKey, Stack, StackSample};

/// A table that was just read and did not change is not read again for every stack: a target with
/// wild return addresses would make us do so.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
/// A library that took the place of another leaves no trace but in the table itself.
const TABLE_AGE_MAX: Duration = Duration::from_secs(5);
const TICKS_PER_SECOND: u64 = 100;

#[derive(Clone, Debug)]
pub struct ResolverConfig {
    pub proc_root: PathBuf,
    /// File and line and inlined functions, where a file carries them.
    pub debug_info: bool,
    /// A JVM may be asked to write down what it has compiled.
    pub java_perfmap: bool,
    /// Where separate debug files are looked for, by build id. Must belong to root.
    pub debug_dirs: Vec<PathBuf>,
    /// Processes whose module tables are kept.
    pub processes: usize,
    /// Module tables and perf maps, of all processes together.
    pub processes_bytes: usize,
    /// ELF files kept open; two descriptors each.
    pub images: usize,
    /// Their headers and unwind tables; one process may have half of it.
    pub tables_bytes: u64,
    /// Symbol and debug sections in memory, of all files together.
    pub names_bytes: u64,
    /// The same for one file; beyond it debug information is left out, then symbols.
    pub image_names_bytes: u64,
    pub section_bytes: u64,
    /// Names already looked up.
    pub cache_bytes: usize,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            proc_root: "/proc".into(),
            debug_info: true,
            java_perfmap: false,
            debug_dirs: vec!["/usr/lib/debug".into()],
            processes: 256,
            processes_bytes: 128 << 20,
            images: 256,
            tables_bytes: 256 << 20,
            names_bytes: 256 << 20,
            image_names_bytes: 192 << 20,
            section_bytes: 64 << 20,
            cache_bytes: 16 << 20,
        }
    }
}

impl ResolverConfig {
    /// Symbols and debug information of all files together take at most so much.
    pub fn with_names_bytes(names_bytes: u64) -> Self {
        let default = Self::default();
        Self {
            names_bytes,
            image_names_bytes: default.image_names_bytes.min(names_bytes),
            section_bytes: default.section_bytes.min(names_bytes),
            ..default
        }
    }
}

/// Owned by the one thread that it is made on: the symbolizer shares nothing between threads.
pub struct Resolver {
    config: ResolverConfig,
    sources: NameSources,
    images: ImageStore,
    names: NameCache,
    jvms: java::Discovery,
    processes: HashMap<ProcessKey, Process>,
    clock: u64,
}

struct Process {
    table: ModuleTable,
    table_bytes: usize,
    unwinder: ProcessUnwinder,
    perf_map: PerfMap,
    jvm: java::Jvm,
    methods: java::MethodReader,
    used_at: u64,
    read_at: Instant,
    /// When the table was last read again without finding a change.
    unchanged_at: Option<Instant>,
}

impl Process {
    fn new(table: ModuleTable, used_at: u64) -> Self {
        Self {
            unwinder: ProcessUnwinder::new(&table),
            perf_map: PerfMap::default(),
            jvm: java::Jvm::default(),
            methods: java::MethodReader::default(),
            table_bytes: table.held_bytes(),
            table,
            used_at,
            read_at: Instant::now(),
            unchanged_at: None,
        }
    }

    fn walk(&mut self, sample: &StackSample, sources: &NameSources) -> Walk {
        let (jvm, methods) = (self.jvm.machine(), &mut self.methods);
        let java = jvm.map(|jvm| java::Walker::new(jvm, methods));
        self.unwinder.walk(&self.table, sample, sources, java)
    }

    fn held_bytes(&self) -> usize {
        let code = self.perf_map.held_bytes() + self.methods.held_bytes();
        self.table_bytes + self.unwinder.held_bytes() + code
    }
}

impl Resolver {
    pub fn new(config: ResolverConfig) -> Self {
        let bounds = PackBounds {
            section_bytes: config.section_bytes,
            total_bytes: config.image_names_bytes,
        };
        Self {
            sources: NameSources {
                debug: config.debug_info,
                debug_dirs: config.debug_dirs.clone(),
                bounds,
            },
            images: ImageStore::new(ImageBounds {
                images: config.images,
                tables_bytes: config.tables_bytes,
                names_bytes: config.names_bytes,
                section_bytes: config.section_bytes,
            }),
            names: NameCache::new(config.cache_bytes),
            jvms: java::Discovery::default(),
            processes: HashMap::new(),
            clock: 0,
            config,
        }
    }

    /// Reads the module table of a process now, so that its stacks can be resolved after its end.
    /// Worth calling at exec or first sight of a process that may be gone soon.
    pub fn observe(&mut self, process: ProcessKey) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.load(process).is_ok()));
    }

    /// Unwinds and names one sample. A failure is a stack with a note that says so.
    pub fn resolve(&mut self, process: ProcessKey, sample: &StackSample) -> Stack {
        if sample.registers.ip == 0 && sample.registers.sp == 0 {
            return Stack::missing("there are no user registers, as in an io_uring worker");
        }
        // The tables read here are the target's to write. Where they break a parser, the stack is
        // lost, not the tool.
        catch_unwind(AssertUnwindSafe(|| self.resolve_unguarded(process, sample))).unwrap_or_else(
            |_| {
                self.forget(process);
                Stack::missing("the unwind tables of its modules are corrupt")
            },
        )
    }

    /// From now on has JVMs write down what they have compiled, or not.
    pub fn allow_java_perfmap(&mut self, may: bool) {
        self.config.java_perfmap = may;
    }

    /// Call when the process has executed another program or ended.
    pub fn forget(&mut self, process: ProcessKey) {
        self.processes.remove(&process);
    }

    /// Bytes held in tables, symbol copies and names; what the bounds of the configuration are for.
    pub fn held_bytes(&self) -> u64 {
        let processes = self.processes_bytes() + self.names.bytes();
        self.images.held_bytes() + processes as u64
    }

    fn processes_bytes(&self) -> usize {
        self.processes.values().map(Process::held_bytes).sum()
    }

    fn resolve_unguarded(&mut self, key: ProcessKey, sample: &StackSample) -> Stack {
        if let Err(cause) = self.load(key) {
            return Stack::missing(cause);
        }
        let Some(mut process) = self.processes.remove(&key) else {
            return Stack::missing("its module table was lost");
        };
        if process.read_at.elapsed() > TABLE_AGE_MAX {
            self.refresh(key, &mut process);
        }
        let mut walk = self.walk(key.pid, &mut process, sample);
        if let Stop::OutsideCode(_) = walk.stop
            && self.refresh(key, &mut process)
        {
            // Two at once are more than a hostile process should have made.
            drop(walk);
            walk = self.walk(key.pid, &mut process, sample);
        }
        let stack = self.name(key.pid, &mut process, walk, sample);
        self.processes.insert(key, process);
        if self.processes_bytes() > self.config.processes_bytes {
            self.make_room(key);
        }
        stack
    }

    fn walk(&mut self, pid: u32, process: &mut Process, sample: &StackSample) -> Walk {
        // Before each walk: a JVM may be among the modules that have just come.
        let (proc_root, jvms) = (&self.config.proc_root, &mut self.jvms);
        jvms.look(proc_root, pid, &process.table, &mut process.jvm);
        process.walk(sample, &self.sources)
    }

    fn load(&mut self, key: ProcessKey) -> Result<(), &'static str> {
        self.clock += 1;
        if let Some(process) = self.processes.get_mut(&key) {
            process.used_at = self.clock;
            return Ok(());
        }
        let table = self.read_table(key, &ModuleTable::default())?;
        let process = Process::new(table, self.clock);
        self.processes.insert(key, process);
        self.make_room(key);
        Ok(())
    }

    fn read_table(
        &mut self,
        key: ProcessKey,
        known: &ModuleTable,
    ) -> Result<ModuleTable, &'static str> {
        const ENDED: &str = "the process ended before its modules could be read";
        let table = ModuleTable::read(&self.config.proc_root, key.pid, &mut self.images, known)
            .map_err(|_| ENDED)?;
        // A zombie's table is empty.
        if table.mappings.is_empty() || !self.is_alive(key) {
            return Err(ENDED);
        }
        Ok(table)
    }

    /// Asked after the table was read: a pid used again by then would have given another's.
    fn is_alive(&self, key: ProcessKey) -> bool {
        let path = self.config.proc_root.join(key.pid.to_string()).join("stat");
        let Some(started_ticks) = fs::read(path).ok().and_then(|stat| start_ticks(&stat)) else {
            return false;
        };
        is_started_at(key, started_ticks)
    }

    fn refresh(&mut self, key: ProcessKey, process: &mut Process) -> bool {
        let paused = process.unchanged_at.map(|at| at.elapsed() < REFRESH_PAUSE);
        if paused == Some(true) {
            return false;
        }
        process.read_at = Instant::now();
        let changed = match self.read_table(key, &process.table) {
            Ok(table) if !table.is_same(&process.table) => table,
            // Ended, or nothing new: what is known stays the best there is.
            _ => {
                process.unchanged_at = Some(process.read_at);
                return false;
            }
        };
        process.unwinder = ProcessUnwinder::new(&changed);
        process.table_bytes = changed.held_bytes();
        process.table = changed;
        true
    }

    /// Forgets the processes not asked for the longest until the bounds hold. `kept` alone is
    /// within them, by the bounds of a module table, a perf map and what is known of methods.
    fn make_room(&mut self, kept: ProcessKey) {
        while self.processes.len() > self.config.processes.max(1)
            || self.processes_bytes() > self.config.processes_bytes
            || !self.images.shrink()
        {
            let oldest = self
                .processes
                .iter()
                .filter(|(key, _)| **key != kept)
                .min_by_key(|(_, process)| process.used_at)
                .map(|(key, _)| *key);
            let Some(oldest) = oldest else { break };
            self.processes.remove(&oldest);
        }
    }
}

/// Whether /proc tells this process's start; where nothing is known of it, it passes.
pub(super) fn is_started_at(key: ProcessKey, started_ticks: u64) -> bool {
    let expected_ticks = key.start_time_ns / (1_000_000_000 / TICKS_PER_SECOND);
    key.start_time_ns == 0 || expected_ticks.abs_diff(started_ticks) <= 1
}

/// Field 22 of /proc/PID/stat; the name in field 2 may hold spaces and brackets.
pub(super) fn start_ticks(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(after_name + 2..)?).ok()?;
    rest.split(' ').nth(19)?.parse().ok()
}

impl Stack {
    /// No frames, and why.
    pub fn missing(cause: &str) -> Self {
        Self {
            frames: Vec::new(),
            note: Some(format!("stack ends early: {cause}")),
        }
    }
}

impl Resolver {
    /// For tests and fuzzing: a process whose modules did not come from /proc.
    pub(super) fn insert(&mut self, key: ProcessKey, table: ModuleTable) {
        let mut process = Process::new(table, 0);
        process.unchanged_at = Some(process.read_at);
        self.processes.insert(key, process);
    }
}

#[cfg(test)]
mod tests {
    use super::start_ticks;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_start_time() {
        let fields: Vec<String> = (3..30).map(|field| field.to_string()).collect();
        let stat = format!("1 (a) b) {}", fields.join(" "));
        assert_eq!(start_ticks(stat.as_bytes()), Some(22));
    }
}
