//! The flame graph of the page: boxes in percent of its width, so that it fits any screen.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::percent;
use crate::export::label;
use crate::report::Report;

/// A box narrower than this cannot be seen; what stands on it is left out, too.
const WIDTH_MIN: f64 = 0.1;
const DEPTH_MAX: usize = 80;

pub(super) struct Flame {
    /// From the root upwards.
    pub(super) boxes: Vec<Box>,
    pub(super) rows: usize,
}

pub(super) struct Box {
    pub(super) name: String,
    pub(super) outstanding: u64,
    pub(super) row: usize,
    /// Percent.
    pub(super) left: f64,
    pub(super) width: f64,
    /// The same name has the same colour.
    pub(super) hue: u64,
}

#[derive(Default)]
struct Node {
    outstanding: u64,
    children: BTreeMap<String, Node>,
}

impl Flame {
    pub(super) fn of(report: &Report) -> Self {
        let mut root = Node::default();
        for opener in &report.openers {
            for stack in &opener.stacks {
                let mut names = vec![label::name(opener)];
                if stack.frames.is_empty() {
                    names.push(label::without_frames(stack.note.as_deref()));
                }
                names.extend(stack.frames.iter().rev().map(label::frame));
                root.add(&names, stack.outstanding);
            }
        }
        let mut flame = Self {
            boxes: Vec::new(),
            rows: 0,
        };
        let whole = root.outstanding;
        flame.lay(&root, 0, 0.0, whole);
        flame
    }

    fn lay(&mut self, node: &Node, row: usize, mut left: f64, whole: u64) {
        if row >= DEPTH_MAX {
            return;
        }
        for (name, child) in &node.children {
            let width = percent(child.outstanding, whole);
            if width >= WIDTH_MIN {
                self.rows = self.rows.max(row + 1);
                self.boxes.push(Box {
                    name: name.clone(),
                    outstanding: child.outstanding,
                    row,
                    left,
                    width,
                    hue: hue(name),
                });
                self.lay(child, row + 1, left, whole);
            }
            left += width;
        }
    }
}

impl Node {
    fn add(&mut self, names: &[String], outstanding: u64) {
        self.outstanding += outstanding;
        if let Some((name, rest)) = names.split_first() {
            let child = self.children.entry(name.clone()).or_default();
            child.add(rest, outstanding);
        }
    }
}

/// Of warm colours, as flame graphs have them.
fn hue(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() % 50
}
