//! Programs, maps and links that the kernel holds now, by their id, asked with bpf(2) itself.

use std::collections::BTreeSet;
use std::io;

use anyhow::{Context, Result};

/// A kind of BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Program,
    Map,
    Link,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Program, Self::Map, Self::Link];

    /// `BPF_{PROG,MAP,LINK}_GET_NEXT_ID` of `enum bpf_cmd`.
    fn command(self) -> libc::c_long {
        match self {
            Self::Program => 11,
            Self::Map => 12,
            Self::Link => 31,
        }
    }

    fn fdinfo_key(self) -> &'static str {
        match self {
            Self::Program => "prog_id:",
            Self::Map => "map_id:",
            Self::Link => "link_id:",
        }
    }

    /// The first id above `id`, or `None` after the last.
    pub fn first_after(self, id: u32) -> io::Result<Option<u32>> {
        // The head of union bpf_attr for *_GET_NEXT_ID: start_id, next_id, open_flags.
        let mut attr = [id, 0u32, 0u32, 0u32];
        // SAFETY: attr outlives the call and its size is given.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                self.command(),
                attr.as_mut_ptr(),
                size_of_val(&attr),
            )
        };
        if rc == 0 {
            return Ok(Some(attr[1]));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOENT) {
            Ok(None)
        } else {
            Err(error)
        }
    }
}

/// Ids of one moment.
pub type Ids = BTreeSet<(Kind, u32)>;

/// Everything that is loaded now.
pub fn loaded() -> Result<Ids> {
    let mut ids = Ids::new();
    for kind in Kind::ALL {
        let mut last = 0;
        while let Some(id) = kind
            .first_after(last)
            .with_context(|| format!("failed to list {kind:?} ids"))?
        {
            ids.insert((kind, id));
            last = id;
        }
    }
    Ok(ids)
}

/// What process `pid` holds by file descriptor.
#[must_use]
pub fn held_by(pid: u32) -> Ids {
    let mut ids = Ids::new();
    let Ok(dir) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return ids;
    };
    for entry in dir.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines() {
            for kind in Kind::ALL {
                if let Some(id) = line.strip_prefix(kind.fdinfo_key())
                    && let Ok(id) = id.trim().parse()
                {
                    ids.insert((kind, id));
                }
            }
        }
    }
    ids
}

/// What is loaded now, was not in `before`, and no living process holds: left behind.
///
/// Objects of other tracers on this machine have a holder, so they never count.
pub fn left_behind(before: &Ids) -> Result<Ids> {
    let mut left: Ids = loaded()?.difference(before).copied().collect();
    if left.is_empty() {
        return Ok(left);
    }
    for entry in std::fs::read_dir("/proc")?.flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) {
            for id in held_by(pid) {
                left.remove(&id);
            }
        }
    }
    Ok(left)
}
