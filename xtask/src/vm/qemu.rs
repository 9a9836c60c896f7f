//! One boot of a machine: software emulation, one CPU, records on a serial line of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::protocol::{Counts, Record, TEST_BEGINS, VERDICT};

const BINARY: &str = "qemu-system-x86_64";
/// Hardening that costs an emulated CPU a fifth of its time and that no test is about.
const CHEAPER: &str = "mitigations=off init_on_alloc=0 hardened_usercopy=off audit=0";
const POLL: Duration = Duration::from_millis(50);

/// What is booted; `name` also names the logs.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: Option<PathBuf>,
    /// An NVMe disk: /dev/nvme0n1.
    pub(crate) disk: Option<PathBuf>,
    /// Added to the kernel's command line.
    pub(crate) parameters: String,
    pub(crate) memory_mib: u32,
    pub(crate) time_limit: Duration,
    pub(crate) logs: PathBuf,
}

/// A boot that reached its verdict, whatever that was.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) records: Vec<Record>,
    pub(crate) counts: Counts,
    pub(crate) duration: Duration,
}

impl Boot {
    /// A further boot of the same machine.
    pub(crate) fn append(&mut self, next: Self) {
        self.records.extend(next.records);
        self.counts.passed += next.counts.passed;
        self.counts.failed += next.counts.failed;
        self.counts.skipped += next.counts.skipped;
        self.duration += next.duration;
    }
}

/// The machine broke before it could say anything about the tests.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) cause: String,
    pub(crate) console: PathBuf,
    pub(crate) console_tail: String,
    /// What was heard before it broke: names the test that was running.
    pub(crate) records: Vec<Record>,
    pub(crate) duration: Duration,
}

#[derive(Debug)]
enum Exit {
    Code(Option<i32>),
    TimedOut,
}

impl Machine {
    /// Boots; once more if the machine broke, never because a test failed.
    pub(crate) fn boot(&self) -> Result<std::result::Result<Boot, Broken>> {
        match self.boot_once()? {
            Err(broken) => {
                eprintln!("{}: {}; booting once more", self.name, broken.cause);
                let kept = self.console().with_extension("first.log");
                std::fs::rename(self.console(), kept)?;
                self.boot_once()
            }
            ok => Ok(ok),
        }
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.logs.join(format!("{}.console.log", self.name))
    }

    fn records(&self) -> PathBuf {
        self.logs.join(format!("{}.records.jsonl", self.name))
    }

    fn boot_once(&self) -> Result<std::result::Result<Boot, Broken>> {
        std::fs::create_dir_all(&self.logs)
            .with_context(|| format!("failed to create {}", self.logs.display()))?;
        // A QEMU that does not even start must not leave the last boot's words to be read.
        if self.records().exists() {
            std::fs::remove_file(self.records())?;
        }
        let started = Instant::now();
        let exit = self.run()?;
        let duration = started.elapsed();
        let console = String::from_utf8_lossy(&std::fs::read(self.console())?).into_owned();
        let records = std::fs::read(self.records()).unwrap_or_default();
        let records = parse_records(&String::from_utf8_lossy(&records));
        Ok(match judge(&exit, &console, &records) {
            Ok(counts) => Ok(Boot {
                records,
                counts,
                duration,
            }),
            Err(cause) => Err(Broken {
                cause: match running_test(&console) {
                    Some(test) => format!("{cause} (while {test} ran)"),
                    None => cause,
                },
                console: self.console(),
                console_tail: tail(&console, 15),
                records,
                duration,
            }),
        })
    }

    fn run(&self) -> Result<Exit> {
        let console = File::create(self.console())
            .with_context(|| format!("failed to create {}", self.console().display()))?;
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stderr(console.try_clone()?)
            .stdout(console);
        let child = command.spawn().with_context(|| {
            format!(
                "failed to run {BINARY}; needs the package qemu-system-x86: cargo xtask setup --vm"
            )
        })?;
        let mut child = KilledOnDrop(child);
        let started = Instant::now();
        loop {
            if let Some(status) = child.0.try_wait()? {
                return Ok(Exit::Code(status.code()));
            }
            if started.elapsed() > self.time_limit {
                return Ok(Exit::TimedOut);
            }
            std::thread::sleep(POLL);
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        // /dev/kvm may exist where guests do not survive on it. One CPU: with two, 6.12 oopses now and then.
        command.args(["-M", "pc", "-accel", "tcg", "-smp", "1"]);
        // A third cheaper to emulate than `max`: no wide vectors. rdrand, lest an early getrandom waits.
        command.args(["-cpu", "Nehalem,+rdrand"]);
        command.args(["-no-reboot", "-nographic", "-nodefaults", "-net", "none"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        command.arg("-m").arg(format!("{}M", self.memory_mib));
        command.arg("-kernel").arg(&self.kernel);
        if let Some(initramfs) = &self.initramfs {
            command.arg("-initrd").arg(initramfs);
        }
        if let Some(disk) = &self.disk {
            let drive = format!("file={},format=raw,if=none,id=d0", escaped(disk));
            command.arg("-drive").arg(drive);
            command.args(["-device", "nvme,serial=connleak,drive=d0"]);
        }
        command.arg("-append").arg(format!(
            "console=ttyS0 quiet panic=-1 {CHEAPER} lsm=lockdown,capability,yama,bpf {}",
            self.parameters
        ));
        command.args(["-serial", "stdio"]);
        command
            .arg("-serial")
            .arg(format!("file:{}", self.records().display()));
        command
    }
}

/// QEMU's option syntax doubles a comma that is meant.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A code of QEMU's means something only together with the verdict line: a panic with panic=-1 exits with 0,
/// an error of QEMU's own with 1, which is also the code of "all passed".
fn judge(exit: &Exit, console: &str, records: &[Record]) -> std::result::Result<Counts, String> {
    let code = match exit {
        Exit::TimedOut => return Err("the machine did not end in time".to_owned()),
        Exit::Code(None) => return Err("QEMU was killed".to_owned()),
        Exit::Code(Some(code)) => *code,
    };
    let Some(line) = console
        .lines()
        .rev()
        .map(str::trim_end)
        .find(|line| line.starts_with(VERDICT))
    else {
        let panic = console.lines().find(|line| line.contains("Kernel panic"));
        let said = panic.map_or_else(String::new, |line| format!(": {}", line.trim()));
        return Err(format!("no verdict line, QEMU exited with {code}{said}"));
    };
    let finished = records.iter().rev().find_map(|record| match record {
        Record::Finished(counts) => Some(*counts),
        _ => None,
    });
    let Some(counts) = finished else {
        return Err("the records end before the verdict".to_owned());
    };
    if line != counts.to_string() {
        return Err(format!(
            "verdict line \"{line}\" is not the records' \"{counts}\""
        ));
    }
    let expected = counts.exit_code() * 2 + 1;
    if i64::from(code) != i64::from(expected) {
        return Err(format!(
            "QEMU exited with {code}, the verdict \"{line}\" needs {expected}"
        ));
    }
    Ok(counts)
}

/// PID 1 names each test on the console before it starts it; a record comes only when it is over.
fn running_test(console: &str) -> Option<&str> {
    console
        .lines()
        .rev()
        .find_map(|line| line.trim_end().strip_prefix(TEST_BEGINS))
}

/// A line that is no record was cut off when the machine broke.
fn parse_records(text: &str) -> Vec<Record> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line.trim_end()).ok())
        .collect()
}

pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().map(str::trim_end).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: Counts = Counts {
        passed: 2,
        failed: 0,
        skipped: 1,
    };
    const FAILED: Counts = Counts {
        passed: 1,
        failed: 1,
        skipped: 0,
    };

    fn console(counts: Counts) -> String {
        format!("boot\r\n{counts}\r\nreboot: Power down\r\n")
    }

    #[test]
    fn verdict_and_code_that_agree_are_believed() {
        for (counts, code) in [(PASSED, 1), (FAILED, 3)] {
            let exit = Exit::Code(Some(code));
            let judged = judge(&exit, &console(counts), &[Record::Finished(counts)]);
            assert_eq!(judged, Ok(counts));
        }
    }

    #[test]
    fn a_panic_is_a_broken_machine_though_qemu_exits_with_0() {
        let cause = judge(&Exit::Code(Some(0)), "Kernel panic - not syncing: x\n", &[])
            .expect_err("nothing was said about tests");
        assert!(cause.contains("Kernel panic - not syncing: x"), "{cause}");
    }

    #[test]
    fn qemus_own_error_is_a_broken_machine_though_it_exits_with_1() {
        assert!(judge(&Exit::Code(Some(1)), "could not load kernel\n", &[]).is_err());
    }

    #[test]
    fn a_failed_verdict_with_the_code_of_success_is_not_believed() {
        let records = [Record::Finished(FAILED)];
        assert!(judge(&Exit::Code(Some(1)), &console(FAILED), &records).is_err());
    }

    #[test]
    fn a_machine_that_does_not_end_is_broken() {
        assert!(
            judge(
                &Exit::TimedOut,
                &console(PASSED),
                &[Record::Finished(PASSED)]
            )
            .is_err()
        );
    }

    #[test]
    fn the_running_test_is_the_last_one_named() {
        let console = "=== a::one\r\nok\r\n=== a::two\r\nBUG: oops\r\n";
        assert_eq!(running_test(console), Some("a::two"));
        assert_eq!(running_test("no kernel found\n"), None);
    }

    #[test]
    fn records_survive_a_line_that_was_cut_off() {
        let text =
            "{\"record\":\"finished\",\"passed\":2,\"failed\":0,\"skipped\":1}\r\n{\"record\":\"te";
        assert_eq!(parse_records(text), [Record::Finished(PASSED)]);
    }
}
