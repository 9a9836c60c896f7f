//! Replays of whole, cut and damaged recordings.

use std::{
    io::{self, Write},
    path::Path,
};

use proptest::prelude::*;

use super::{Judging, Recorder, Replayed, replay::replay_from};
use crate::decode::recording::{Entry, Moment, RecordingError};

const RECORDING: &[u8] = include_bytes!("../../../tests/fixtures/leaky_pool.rec");
/// Magic and version.
const PREAMBLE_BYTES: usize = 16;

fn replayed(bytes: &[u8]) -> Result<Replayed, RecordingError> {
    replay_from(bytes, bytes.len() as u64, &Judging::default())
}

/// Where each entry begins and how long its content is.
fn entries(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = PREAMBLE_BYTES;
    while let Some(length) = bytes.get(at + 1..).and_then(<[u8]>::first_chunk) {
        let length = u32::from_le_bytes(*length) as usize;
        found.push((at, length));
        at += 5 + length + 4;
    }
    found
}

#[test]
fn whole_recording_is_replayed() {
    let whole = replayed(RECORDING).expect("it is whole");
    assert!(whole.cut.is_none());
    let opener = whole.report.openers.first().expect("a client leaked");
    assert_eq!((opener.opened, opener.closed), (Some(5), Some(1)));
    assert_eq!(opener.outstanding, 4);
}

#[test]
fn every_prefix_is_cut_at_an_entry_and_says_which() {
    let starts = entries(RECORDING);
    for length in 0..RECORDING.len() {
        let cut = match replayed(&RECORDING[..length]) {
            Ok(replayed) => replayed.cut.expect("it is cut"),
            Err(error) => error,
        };
        match cut {
            RecordingError::Magic => assert!(length < PREAMBLE_BYTES),
            RecordingError::Cut { offset } => {
                let last = starts.iter().rfind(|(at, _)| *at <= length);
                assert_eq!(last.map(|(at, _)| *at as u64), Some(offset));
            }
            other => panic!("{length} bytes: {other}"),
        }
    }
}

#[test]
fn length_beyond_the_file_allocates_nothing() {
    let mut bytes = RECORDING[..PREAMBLE_BYTES].to_vec();
    bytes.extend([1, 0xff, 0xff, 0xff, 0xff]);
    let error = replayed(&bytes).expect_err("4 GiB do not follow");
    assert!(matches!(error, RecordingError::Cut { offset: 16 }));
}

#[test]
fn no_byte_of_a_stack_copy_is_recorded() {
    let mut event = vec![0xAA; 4096];
    event[..4].copy_from_slice(&1_u32.to_le_bytes());
    let entry = Entry::Event(event.into()).encode().expect("it is short");
    // Frame, header, socket, registers, stack_bytes, flags, CRC.
    assert_eq!(entry.len(), 5 + 184 + 4);
    assert_eq!(entry[5 + 176..5 + 180], [0; 4]);
}

/// A disk with this much room.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn full_disk_ends_the_recording_and_is_told_once() {
    let mut recorder = Recorder::onto(Path::new("/full/disk"), Box::new(Disk(1000)));
    let entry = Entry::Moment(Moment::default());
    let mut failures = Vec::new();
    for _ in 0..100 {
        recorder.write(&entry);
        failures.extend(recorder.take_failure());
    }
    assert_eq!(failures.len(), 1);
    assert!(format!("{:#}", failures[0]).contains("/full/disk"));
}

proptest! {
    #[test]
    fn flipped_byte_is_refused_with_its_offset(at in 0..RECORDING.len(), flip in 1_u8..) {
        let mut bytes = RECORDING.to_vec();
        bytes[at] ^= flip;
        let said = match replayed(&bytes) {
            Ok(replayed) => replayed.cut.map(|cut| cut.to_string()),
            Err(error) => Some(error.to_string()),
        };
        prop_assert!(said.is_some_and(|said| said.contains("byte")));
    }

    /// The checksum is made to fit, so that the damage reaches the decoders and the state.
    #[test]
    fn forged_content_is_replayed_or_refused(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut bytes = RECORDING.to_vec();
        let all = entries(&bytes);
        for (entry, within, value) in edits {
            let (at, length) = all[entry.index(all.len())];
            if length > 0 {
                bytes[at + 5 + within.index(length)] = value;
            }
            let crc = crc32fast::hash(&bytes[at..at + 5 + length]);
            bytes[at + 5 + length..at + 9 + length].copy_from_slice(&crc.to_le_bytes());
        }
        let _ = replayed(&bytes);
    }
}
