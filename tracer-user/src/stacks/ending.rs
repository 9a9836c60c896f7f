//! How a stack ended: at a thread's root, or early and why.

use framehop::FrameAddress;

use super::java;
use super::modules::{Code, ModuleTable};
use super::unwind::{FRAMES_MAX, Stop, Walk};
use super::{Frame, StackSample};

/// Code this close behind an ELF file's entry point is `_start`, which a stripped file cannot name.
const START_BYTES: u64 = 64;

const BY_FRAME_POINTERS: &str =
    "the frames outside it were found by frame pointers and may be wrong";

/// `None` if the outermost frame is where a thread begins.
pub(super) fn early_end(
    table: &ModuleTable,
    walk: &Walk,
    sample: &StackSample,
    outermost: Option<&Frame>,
) -> Option<String> {
    match walk.stop {
        Stop::Root => None,
        Stop::NoCaller if is_thread_root(table, walk.addresses.last(), outermost) => None,
        Stop::NoCaller => Some("no caller was found".to_owned()),
        Stop::Unread(_) if sample.bounded => Some(format!(
            "only {} KiB of it were copied; raise --stack-bytes",
            sample.copy.len() >> 10
        )),
        Stop::Unread(address) => Some(format!("its memory at {address:#x} was not copied")),
        Stop::OutsideCode(address) => Some(format!("{address:#x} lies in no executable mapping")),
        Stop::Inconsistent => Some("the caller's registers could not be recovered".to_owned()),
        Stop::CodeGone => Some("the code of a Java frame was gone when it was read".to_owned()),
        Stop::ReadEnough => Some(format!(
            "its Java frames take more than {} MiB to read",
            java::WALK_MAX_BYTES >> 20
        )),
        Stop::InHeap => {
            Some("the outer frames of its virtual thread are in Java's heap".to_owned())
        }
        Stop::TooDeep => Some(format!("more than {FRAMES_MAX} frames")),
    }
}

fn is_thread_root(
    table: &ModuleTable,
    address: Option<&FrameAddress>,
    outermost: Option<&Frame>,
) -> bool {
    const ROOTS: [&str; 10] = [
        "_start",
        "clone",
        "__clone",
        "clone3",
        "__clone3",
        "runtime.goexit",
        "runtime.goexit.abi0",
        "runtime.mstart",
        "runtime.mstart.abi0",
        "runtime.rt0_go.abi0",
    ];
    let name = outermost.and_then(|frame| frame.function.as_deref());
    if name.is_some_and(|name| ROOTS.contains(&name)) {
        return true;
    }
    let Some(address) = address.map(|address| address.address_for_lookup()) else {
        return false;
    };
    match table.at(address).map(|mapping| &mapping.code) {
        Some(Code::Image { image, bias }) => address
            .wrapping_sub(*bias)
            .checked_sub(image.elf.entry)
            .is_some_and(|distance| distance < START_BYTES),
        _ => false,
    }
}

/// What a reader must know about a stack that may look complete and is not.
pub(super) fn doubts(table: &ModuleTable, walk: &Walk) -> Vec<String> {
    let mut doubts: Vec<String> = Vec::new();
    for (at, address) in walk.addresses.iter().enumerate() {
        let Some(mapping) = table.at(address.address_for_lookup()) else {
            continue;
        };
        let guessed = walk.guessed.contains(&at);
        let doubt = match &mapping.code {
            Code::Unreadable(why) if guessed => {
                format!("no names in {}: {why}; {BY_FRAME_POINTERS}", mapping.path)
            }
            Code::Unreadable(why) => format!("no names in {}: {why}", mapping.path),
            Code::Image { .. } if guessed => {
                format!("no unwind tables in {}; {BY_FRAME_POINTERS}", mapping.path)
            }
            _ => continue,
        };
        if !doubts.contains(&doubt) {
            doubts.push(doubt);
        }
    }
    doubts
}

/// What a reader must know of the Java frames of a JVM that could not be read, which is the `cause`:
/// so many of them have no name. A JVM's code keeps no frame pointer, unless it was told to.
pub(super) fn java_doubts(
    table: &ModuleTable,
    walk: &Walk,
    cause: &str,
    (unnamed, remedy): (usize, &str),
) -> Vec<String> {
    let mut doubts = Vec::new();
    if unnamed > 0 {
        doubts.push(format!(
            "{unnamed} Java frames without name: {cause}{remedy}"
        ));
    }
    let is_jvms = |at: &usize| {
        let address = walk.addresses.get(*at);
        let mapping = address.and_then(|it| table.at(it.address_for_lookup()));
        mapping.is_some_and(|mapping| matches!(mapping.code, Code::Anonymous))
    };
    if walk.guessed.iter().any(is_jvms) {
        let cause = match unnamed {
            0 => format!(": {cause}"),
            _ => String::new(),
        };
        doubts.push(format!(
            "no unwind tables for its JVM's code{cause}; {BY_FRAME_POINTERS}"
        ));
    }
    doubts
}
