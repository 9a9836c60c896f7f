//! Labels: what an opener and a frame are called in formats that show stacks as lines of names.

use crate::{
    report::{clean, model::OpenerReport},
    stacks::Frame,
};

/// The last part of a path, cleaned.
pub(super) fn file_name(path: &str) -> String {
    clean(path.rsplit('/').next().unwrap_or(path))
}

/// `get_client (leaker.rs:24)`, or what is known of the frame.
pub(super) fn frame(frame: &Frame) -> String {
    let place = match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => Some(format!("{}:{line}", file_name(file))),
        (Some(file), None, _) => Some(file_name(file)),
        (None, _, Some(module)) => Some(file_name(module)),
        (None, ..) => None,
    };
    match (&frame.function, place) {
        (Some(function), Some(place)) => format!("{} ({place})", clean(function)),
        (Some(function), None) => clean(function),
        (None, Some(place)) => format!("[{place}]"),
        (None, None) => "[unknown]".to_owned(),
    }
}

/// The stand-in for the frames of a stack that has none.
pub(super) fn without_frames(note: Option<&str>) -> String {
    format!("[{}]", clean(note.unwrap_or("no stack")))
}

pub(super) fn unit(opener: &OpenerReport) -> String {
    let place = opener.unit.as_deref().or(opener.container.as_deref());
    place.map_or_else(|| "[no unit]".to_owned(), clean)
}

pub(super) fn name(opener: &OpenerReport) -> String {
    match (&opener.name, opener.pid) {
        (Some(name), _) => clean(name),
        (None, Some(pid)) => format!("[process {pid}]"),
        (None, None) => "[unattributed]".to_owned(),
    }
}
