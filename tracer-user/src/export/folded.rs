//! Folded stacks: `unit;name;outermost;...;innermost N`, for flame graphs and speedscope.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::label;
use crate::report::{
    Report,
    model::{OpenerReport, StackReport},
};

/// One line a stack, sorted; the same stack of several processes of one name is one line.
pub fn folded(report: &Report) -> String {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for opener in &report.openers {
        for stack in &opener.stacks {
            *lines.entry(line(opener, stack)).or_default() += stack.outstanding;
        }
    }
    let mut text = String::new();
    for (line, outstanding) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line} {outstanding}");
    }
    text
}

fn line(opener: &OpenerReport, stack: &StackReport) -> String {
    let mut names = vec![label::unit(opener), label::name(opener)];
    if stack.frames.is_empty() {
        names.push(label::without_frames(stack.note.as_deref()));
    }
    names.extend(stack.frames.iter().rev().map(label::frame));
    let names: Vec<String> = names.iter().map(|name| one(name)).collect();
    names.join(";")
}

/// A name must not end where the format thinks it does.
fn one(name: &str) -> String {
    let name = name.replace(';', ":");
    match name.trim() {
        "" => "[empty]".to_owned(),
        name => name.to_owned(),
    }
}
