//! Tests of the evidence: before, after, and on a disk that is full.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::policy::decision::{Facts, Subject};
use crate::policy::level::{Level, Thresholds};
use crate::policy::rules::Rung;

fn evidence(id: u64, report: Value) -> Evidence {
    Evidence {
        schema: SCHEMA.to_owned(),
        version: "0.1.0".to_owned(),
        host: "h".to_owned(),
        boot_id: "b".to_owned(),
        decided_at: format!("2026-11-23T03:15:{id:02}.123Z"),
        act: Act {
            id,
            rung: Rung::Restart,
            unit: "a/../b.service".to_owned(),
            dry_run: false,
            reason: "it leaks".to_owned(),
            facts: Facts {
                subject: Subject::Port(6379),
                count: 110,
                level: Level::Critical,
                thresholds: Thresholds::default(),
                hold_s: 10.0,
                units: Default::default(),
                growth_outside_units_per_minute: 0.0,
                failed_restarts: 0,
                since_last_restart_s: None,
            },
        },
        report,
        outcome: None,
        record: None,
        verdict: None,
        completed_at: None,
    }
}

#[test]
fn evidence_is_there_before_and_completed_after() {
    let directory = tempfile::tempdir().expect("temp directory");
    let store = EvidenceStore::new(directory.path().join("evidence"), 10);
    let path = store.write(&evidence(7, Value::Null)).expect("written");
    assert!(
        path.ends_with("evidence/20261123T031507Z-000007-a_.._b.service.json"),
        "{path:?}"
    );
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&directory.path().join("evidence")), 0o700);

    store
        .complete(&path, |evidence| evidence.outcome = Some(Outcome::Done))
        .expect("completed");
    let found = store.find(7).expect("found again");
    assert_eq!(found, path);
    let text = fs::read(&found).expect("readable");
    let read: Evidence = serde_json::from_slice(&text).expect("valid");
    assert_eq!(read.outcome, Some(Outcome::Done));
    assert_eq!(read.act, evidence(7, Value::Null).act);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(store.find(8), None);
}

#[test]
fn the_oldest_evidence_goes_first() {
    let directory = tempfile::tempdir().expect("temp directory");
    let store = EvidenceStore::new(directory.path().to_owned(), 3);
    for id in 1..=5 {
        store.write(&evidence(id, Value::Null)).expect("written");
    }
    let left: Vec<bool> = (1..=5).map(|id| store.find(id).is_some()).collect();
    assert_eq!(left, [false, false, true, true, true]);
}

#[test]
fn a_link_in_the_way_is_not_written_through() {
    let directory = tempfile::tempdir().expect("temp directory");
    let store = EvidenceStore::new(directory.path().to_owned(), 3);
    let victim = directory.path().join("victim");
    fs::write(&victim, "precious").expect("written");
    let temporary = directory
        .path()
        .join(file_name(&evidence(1, Value::Null)) + ".tmp");
    std::os::unix::fs::symlink(&victim, temporary).expect("linked");
    store.write(&evidence(1, Value::Null)).expect("written");
    assert_eq!(fs::read_to_string(&victim).expect("readable"), "precious");
}

/// A file system of 64 KiB, unmounted at its end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let target = CString::new(directory.path().as_os_str().as_encoded_bytes())?;
        // SAFETY: all four pointers are to NUL-terminated strings that outlive the call.
        let mounted = unsafe {
            let options = c"size=64k".as_ptr().cast();
            libc::mount(
                c"tmpfs".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options,
            )
        };
        if mounted != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(target) = CString::new(self.0.path().as_os_str().as_encoded_bytes()) {
            // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn a_full_disk_is_said_and_leaves_no_half_file() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("skipped: a small tmpfs cannot be mounted here: {error}");
            return;
        }
    };
    let store = EvidenceStore::new(disk.0.path().join("evidence"), 10);
    let error = store
        .write(&evidence(1, Value::String("x".repeat(100_000))))
        .expect_err("larger than the disk");
    let text = error.to_string();
    assert!(
        text.starts_with("failed to write evidence ") && text.contains("free space"),
        "{text}"
    );
    assert_eq!(
        fs::read_dir(disk.0.path().join("evidence"))
            .expect("there")
            .count(),
        0
    );
    store
        .write(&evidence(2, Value::Null))
        .expect("a small one fits");
}
