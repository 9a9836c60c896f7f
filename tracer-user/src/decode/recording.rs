//! A recording: everything a trace was told, in the order it was told, so that it can be told again.
//!
//! # Format, version 2
//!
//! ```text
//! file    = magic "connleak-rec" (12 bytes), version (u32), entries
//! entry   = kind (u8), length (u32), content (length bytes), CRC-32 of all of these (u32)
//! ```
//!
//! Integers are little-endian. The first entry is the header, the last one the end; what a crash
//! leaves reads up to its last whole entry. [`Entry`] says what each kind holds: JSON, unless it
//! says bytes, which are the kernel side's own structs. The kernel's HZ stands nowhere: replay
//! learns it from the open files, as the trace did.
//!
//! A stack copy holds secrets and is never written: a connect event is cut off after its registers.

use std::{collections::BTreeMap, io::Read};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracer_ebpf::abi::socket::SocketRecord;

use super::{event, wire};
use crate::{
    kernel::Counters,
    process::{Process, ProcessKey},
    stacks::Stack,
};

/// The version of the header's JSON.
pub const SCHEMA: &str = "connleak.recording/1";

const MAGIC: &[u8; 12] = b"connleak-rec";
const VERSION: u32 = 2;
/// Kind and length, and the CRC at the end.
const FRAME_BYTES: u64 = 5 + 4;

/// Where and by what a recording was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: String,
    /// connleak's version.
    pub version: String,
    pub kernel: String,
    pub host: String,
    pub boot_id: String,
    /// Real time minus CLOCK_BOOTTIME.
    pub boot_at_ns: i64,
    pub started_ns: u64,
    /// connleak's own network namespace.
    pub netns: Option<u32>,
    pub ports: Vec<u16>,
    pub probes: BTreeMap<String, String>,
}

/// What was known of a process from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    pub key: ProcessKey,
    pub process: Process,
    /// Its user's name on that host.
    pub user: Option<String>,
}

/// A socket's stack: the `stack`th of the recording, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackOf {
    pub socket: u64,
    pub opened_ns: Option<u64>,
    pub stack: u32,
}

/// What reconciling repaired: missed notices, gone, untracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    pub since_start: [u64; 3],
    pub latest: [u64; 3],
}

/// The kernel side's own numbers at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub now_ns: u64,
    /// What each process opened and closed.
    pub tallies: Vec<(ProcessKey, u64, u64)>,
    pub counters: Counters,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Header(Header),
    /// Bytes: one entry of the ring, without its stack copy.
    Event(Bytes),
    /// Bytes: a walk over the open files.
    OpenFiles(Bytes),
    /// Bytes: a socket that reconciling looked at, and what the kernel's map has of it, if anything.
    Repaired(u64, Option<SocketRecord>),
    /// Bytes: a socket that no walk found.
    Gone(u64),
    Reconciled(Reconciled),
    Process(ProcessFacts),
    Stack(Stack),
    StackOf(StackOf),
    /// Bytes: a socket whose stack found the stack thread's queue full.
    QueueFull(u64),
    Moment(Moment),
    End,
}

/// Bytes that are no recording, or not all of one.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error(
        "no recording begins like this at byte 0; make one with `connleak trace --record FILE`"
    )]
    Magic,
    #[error(
        "version {0} at byte 12 is unknown, not {VERSION}; replay it with the connleak that wrote it"
    )]
    Version(u32),
    /// Everything before it is whole.
    #[error("entry at byte {offset} is cut short; the recording did not end in order")]
    Cut { offset: u64 },
    #[error(
        "entry of kind {kind} at byte {offset} is damaged: its checksum differs; copy the file again"
    )]
    Checksum { kind: u8, offset: u64 },
    #[error(
        "entry of kind {kind} at byte {offset} is unreadable: {cause}; replay it with the connleak that wrote it"
    )]
    Content {
        kind: u8,
        offset: u64,
        cause: String,
    },
    #[error("{left} bytes follow the end at byte {offset}; copy the file again")]
    AfterEnd { offset: u64, left: u64 },
    #[error("reading at byte {offset} failed: {cause}")]
    Read { offset: u64, cause: std::io::Error },
}

/// What a recording begins with.
pub fn preamble() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes
}

impl Entry {
    /// The entry with its frame, as it stands in the file.
    ///
    /// # Errors
    ///
    /// JSON cannot hold it, or it is longer than 4 GiB.
    pub fn encode(&self) -> Result<Vec<u8>, RecordingError> {
        let (kind, content) = self.content().map_err(|cause| RecordingError::Content {
            kind: self.kind(),
            offset: 0,
            cause: cause.to_string(),
        })?;
        let length = u32::try_from(content.len()).map_err(|_| RecordingError::Content {
            kind,
            offset: 0,
            cause: "longer than 4 GiB".to_owned(),
        })?;
        let mut bytes = Vec::with_capacity(content.len() + FRAME_BYTES as usize);
        bytes.push(kind);
        bytes.extend(length.to_le_bytes());
        bytes.extend(content);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        Ok(bytes)
    }

    pub fn kind(&self) -> u8 {
        match self {
            Self::Header(_) => 1,
            Self::Event(_) => 2,
            Self::OpenFiles(_) => 3,
            Self::Repaired(..) => 4,
            Self::Gone(_) => 5,
            Self::Reconciled(_) => 6,
            Self::Process(_) => 7,
            Self::Stack(_) => 8,
            Self::StackOf(_) => 9,
            Self::QueueFull(_) => 10,
            Self::Moment(_) => 11,
            Self::End => 12,
        }
    }

    fn content(&self) -> serde_json::Result<(u8, Vec<u8>)> {
        let content = match self {
            Self::Header(header) => serde_json::to_vec(header)?,
            Self::Event(bytes) => event::without_stack(bytes),
            Self::OpenFiles(bytes) => bytes.to_vec(),
            Self::Repaired(socket, record) => {
                let mut bytes = socket.to_le_bytes().to_vec();
                if let Some(record) = record {
                    bytes.extend(wire::bytes(record));
                }
                bytes
            }
            Self::Gone(socket) | Self::QueueFull(socket) => socket.to_le_bytes().to_vec(),
            Self::Reconciled(reconciled) => serde_json::to_vec(reconciled)?,
            Self::Process(facts) => serde_json::to_vec(facts)?,
            Self::Stack(stack) => serde_json::to_vec(stack)?,
            Self::StackOf(stack_of) => serde_json::to_vec(stack_of)?,
            Self::Moment(moment) => serde_json::to_vec(moment)?,
            Self::End => Vec::new(),
        };
        Ok((self.kind(), content))
    }

    fn decode(kind: u8, content: Vec<u8>) -> Result<Self, String> {
        Ok(match kind {
            1 => Self::Header(header(&content)?),
            2 => Self::Event(event::with_room(content).into()),
            3 => Self::OpenFiles(content.into()),
            4 => {
                let (socket, record) = content.split_at_checked(8).ok_or("shorter than 8 bytes")?;
                let record = match record.len() {
                    0 => None,
                    _ => Some(exactly(record)?),
                };
                Self::Repaired(number(socket)?, record)
            }
            5 => Self::Gone(number(&content)?),
            6 => Self::Reconciled(json(&content)?),
            7 => Self::Process(json(&content)?),
            8 => Self::Stack(json(&content)?),
            9 => Self::StackOf(json(&content)?),
            10 => Self::QueueFull(number(&content)?),
            11 => Self::Moment(json(&content)?),
            12 if content.is_empty() => Self::End,
            12 => return Err("the end has no content".to_owned()),
            _ => return Err("its kind is unknown".to_owned()),
        })
    }
}

fn json<T: DeserializeOwned>(content: &[u8]) -> Result<T, String> {
    serde_json::from_slice(content).map_err(|error| error.to_string())
}

fn header(content: &[u8]) -> Result<Header, String> {
    let header: Header = json(content)?;
    if header.schema == SCHEMA {
        Ok(header)
    } else {
        Err(format!("schema {:?} is not {SCHEMA}", header.schema))
    }
}

fn number(content: &[u8]) -> Result<u64, String> {
    let bytes = content
        .try_into()
        .map_err(|_| format!("{} bytes, not 8", content.len()))?;
    Ok(u64::from_le_bytes(bytes))
}

fn exactly(content: &[u8]) -> Result<SocketRecord, String> {
    wire::read(content)
        .filter(|_| content.len() == size_of::<SocketRecord>())
        .ok_or_else(|| format!("a record of {} bytes", content.len()))
}

/// Reads a recording entry by entry.
pub struct Reader<R> {
    input: R,
    offset: u64,
    length_bytes: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// `length_bytes` bounds what is believed, and with it what is allocated.
    ///
    /// # Errors
    ///
    /// It is no recording of this version.
    pub fn new(input: R, length_bytes: u64) -> Result<Self, RecordingError> {
        let mut reader = Self {
            input,
            offset: 0,
            length_bytes,
            ended: false,
        };
        let start = reader
            .take(MAGIC.len() as u64 + 4, 0)
            .map_err(|error| match error {
                RecordingError::Cut { .. } => RecordingError::Magic,
                other => other,
            })?;
        let version = start
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.try_into().ok())
            .map(u32::from_le_bytes)
            .ok_or(RecordingError::Magic)?;
        if version == VERSION {
            Ok(reader)
        } else {
            Err(RecordingError::Version(version))
        }
    }

    /// The next entry and the byte it begins at; `None` after the end.
    ///
    /// # Errors
    ///
    /// The entry is cut short, damaged or unknown.
    pub fn read(&mut self) -> Result<Option<(u64, Entry)>, RecordingError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset;
        let frame = self.take(5, offset)?;
        let kind = frame[0];
        let length = u32::from_le_bytes([frame[1], frame[2], frame[3], frame[4]]);
        let content = self.take(u64::from(length), offset)?;
        let crc = self.take(4, offset)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&frame);
        hasher.update(&content);
        if crc != hasher.finalize().to_le_bytes() {
            return Err(RecordingError::Checksum { kind, offset });
        }
        let entry = Entry::decode(kind, content).map_err(|cause| RecordingError::Content {
            kind,
            offset,
            cause,
        })?;
        if entry == Entry::End {
            self.ended = true;
            let left = self.length_bytes - self.offset;
            if left > 0 {
                return Err(RecordingError::AfterEnd {
                    offset: self.offset,
                    left,
                });
            }
        }
        Ok(Some((offset, entry)))
    }

    fn take(&mut self, count: u64, entry_offset: u64) -> Result<Vec<u8>, RecordingError> {
        let cut = RecordingError::Cut {
            offset: entry_offset,
        };
        if count > self.length_bytes - self.offset {
            return Err(cut);
        }
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(cut),
            Err(cause) => {
                return Err(RecordingError::Read {
                    offset: self.offset,
                    cause,
                });
            }
        }
        self.offset += count;
        Ok(bytes)
    }
}
