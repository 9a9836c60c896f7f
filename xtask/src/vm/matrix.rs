//! Kernels times families, booted a few at a time.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::kernels::{Kernel, Series};
use super::protocol::{FAMILY_PARAMETER, Outcome, Record};
use super::qemu::{Boot, Broken, Machine};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Family {
    Fentry,
    Kprobe,
    Tracepoint,
    /// No family but a machine of another kind: `--systemd` asks for it.
    #[value(skip)]
    Systemd,
}

impl Family {
    pub(crate) const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::Tracepoint];
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::Systemd => "systemd",
        })
    }
}

/// One cell of the table.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) series: Series,
    pub(super) family: Family,
    pub(super) outcome: std::result::Result<Boot, Broken>,
}

impl Cell {
    pub(super) fn failed(&self) -> bool {
        match &self.outcome {
            Ok(boot) => boot.counts.failed > 0,
            Err(_) => true,
        }
    }

    pub(super) fn records(&self) -> &[Record] {
        match &self.outcome {
            Ok(boot) => &boot.records,
            Err(broken) => &broken.records,
        }
    }

    pub(super) fn duration(&self) -> Duration {
        match &self.outcome {
            Ok(boot) => boot.duration,
            Err(broken) => broken.duration,
        }
    }
}

/// What all boots share.
pub(super) struct Matrix<'a> {
    pub(super) initramfs: &'a Path,
    pub(super) memory_mib: u32,
    pub(super) time_limit: Duration,
    pub(super) logs: PathBuf,
    pub(super) jobs: usize,
}

impl Matrix<'_> {
    /// Boots every pair; cells come back in the table's order.
    pub(super) fn run(&self, kernels: &[Kernel], families: &[Family]) -> Result<Vec<Cell>> {
        let mut queue: Vec<(&Kernel, Family)> = kernels
            .iter()
            .flat_map(|kernel| families.iter().map(move |&family| (kernel, family)))
            .collect();
        let total = queue.len();
        queue.reverse();
        let queue = Mutex::new(queue);
        let cells = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs.max(1))
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        loop {
                            // A guard in the loop's head would be held for the whole boot.
                            let next = locked(&queue).pop();
                            let Some((kernel, family)) = next else {
                                return Ok(());
                            };
                            let cell = self.boot(kernel, family)?;
                            let mut cells = locked(&cells);
                            cells.push(cell);
                            report(&cells[cells.len() - 1], cells.len(), total);
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok::<(), anyhow::Error>(())
        })?;
        let mut cells = cells.into_inner().unwrap_or_else(PoisonError::into_inner);
        cells.sort_by_key(|cell: &Cell| (cell.series, cell.family));
        Ok(cells)
    }

    fn boot(&self, kernel: &Kernel, family: Family) -> Result<Cell> {
        let machine = Machine {
            name: format!("{}-{family}", kernel.series),
            kernel: kernel.image.clone(),
            initramfs: Some(self.initramfs.to_path_buf()),
            disk: None,
            parameters: format!("{FAMILY_PARAMETER}{family}"),
            memory_mib: self.memory_mib,
            time_limit: self.time_limit,
            logs: self.logs.clone(),
        };
        Ok(Cell {
            series: kernel.series,
            family,
            outcome: machine.boot()?,
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line as each boot ends: a matrix takes minutes.
pub(super) fn report(cell: &Cell, done: usize, total: usize) {
    let seconds = cell.duration().as_secs_f32();
    let word = match &cell.outcome {
        Ok(boot) => format!(
            "{} passed, {} failed, {} skipped",
            boot.counts.passed, boot.counts.failed, boot.counts.skipped
        ),
        Err(broken) => format!("broken: {}", broken.cause),
    };
    eprintln!(
        "[{done}/{total}] {} {}: {word} ({seconds:.1} s)",
        cell.series, cell.family
    );
    for record in cell.records() {
        if let Record::Test(test) = record
            && test.outcome == Outcome::Failed
        {
            eprintln!(
                "    FAILED {}: {}",
                test.name,
                test.reason.as_deref().unwrap_or("")
            );
        }
    }
}
