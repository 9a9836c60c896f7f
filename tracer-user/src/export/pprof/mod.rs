//! pprof: what is outstanding as a profile, for `go tool pprof` and whatever reads its format.

mod message;

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use prost::Message;

use self::message::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use super::label;
use crate::{
    report::{
        Report, clean,
        model::{OpenerReport, StackReport},
    },
    stacks::Frame,
};

/// The profile, gzipped as the format demands.
///
/// # Errors
///
/// None in memory; the encoder's signature has one.
pub fn pprof(report: &Report) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&profile(report).encode_to_vec())?;
    encoder.finish()
}

fn profile(report: &Report) -> Profile {
    let mut tables = Tables::default();
    // The format's rule: the first string is the empty one.
    tables.string("");
    let kind = ValueType {
        kind: tables.string("outstanding"),
        unit: tables.string("count"),
    };
    let mut samples = Vec::new();
    for opener in &report.openers {
        for stack in &opener.stacks {
            samples.push(tables.sample(opener, stack));
        }
    }
    let taken: Option<jiff::Timestamp> = report.generated_at.parse().ok();
    let time_ns = taken.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    Profile {
        sample_type: vec![kind],
        sample: samples,
        mapping: tables.mappings,
        location: tables.locations,
        function: tables.functions,
        default_sample_type: kind.kind,
        string_table: tables.strings,
        time_nanos: time_ns.unwrap_or_default(),
        period_type: Some(kind),
        period: 1,
    }
}

/// The profile's tables: everything is said once, and named by its number.
#[derive(Default)]
struct Tables {
    strings: Vec<String>,
    string_of: HashMap<String, i64>,
    functions: Vec<Function>,
    function_of: HashMap<(i64, i64), u64>,
    mappings: Vec<Mapping>,
    mapping_of: HashMap<i64, u64>,
    locations: Vec<Location>,
    location_of: HashMap<(u64, Vec<Line>), u64>,
}

impl Tables {
    fn sample(&mut self, opener: &OpenerReport, stack: &StackReport) -> Sample {
        // pprof takes the first mapping for the program itself.
        if let Some(module) = stack
            .frames
            .last()
            .and_then(|frame| frame.module.as_deref())
        {
            self.mapping(module);
        }
        let mut location_id = Vec::new();
        // A frame that was inlined is a line of the location of the frame that holds its code.
        for frames in stack.frames.split_inclusive(|frame| !frame.inlined) {
            location_id.push(self.location(frames));
        }
        if location_id.is_empty() {
            let name = label::without_frames(stack.note.as_deref());
            let line = Line {
                function_id: self.function(&name, ""),
                line: 0,
            };
            location_id.push(self.place(0, vec![line]));
        }
        Sample {
            location_id,
            value: vec![i64::try_from(stack.outstanding).unwrap_or(i64::MAX)],
            label: self.labels(opener, stack),
        }
    }

    fn labels(&mut self, opener: &OpenerReport, stack: &StackReport) -> Vec<Label> {
        let mut labels = Vec::new();
        for (key, text) in [
            ("name", Some(label::name(opener))),
            ("unit", opener.unit.as_deref().map(clean)),
            ("container", opener.container.as_deref().map(clean)),
            ("user", opener.user.as_deref().map(clean)),
            (
                "verdict",
                opener.trend.verdict.map(|verdict| verdict.to_string()),
            ),
        ] {
            if let Some(text) = text {
                labels.push(Label {
                    key: self.string(key),
                    str: self.string(&text),
                    ..Label::default()
                });
            }
        }
        if let Some(pid) = opener.pid {
            labels.push(Label {
                key: self.string("pid"),
                num: i64::from(pid),
                ..Label::default()
            });
        }
        if let Some(age_s) = stack.oldest_age_s {
            labels.push(Label {
                key: self.string("oldest_age"),
                num: age_s as i64,
                num_unit: self.string("seconds"),
                ..Label::default()
            });
        }
        labels
    }

    /// Innermost first, as in the report.
    fn location(&mut self, frames: &[Frame]) -> u64 {
        let mapping_id = frames
            .last()
            .and_then(|frame| frame.module.as_deref())
            .map_or(0, |module| self.mapping(module));
        let lines = frames
            .iter()
            .map(|frame| Line {
                function_id: self.function_of(frame),
                line: i64::from(frame.line.unwrap_or(0)),
            })
            .collect();
        self.place(mapping_id, lines)
    }

    fn place(&mut self, mapping_id: u64, line: Vec<Line>) -> u64 {
        let key = (mapping_id, line.clone());
        numbered(&mut self.location_of, &mut self.locations, key, |id| {
            Location {
                id,
                mapping_id,
                line,
            }
        })
    }

    fn function_of(&mut self, frame: &Frame) -> u64 {
        let name = match &frame.function {
            Some(function) => clean(function),
            None => label::frame(frame),
        };
        self.function(&name, frame.file.as_deref().unwrap_or_default())
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.string(name), self.string(&clean(file)));
        numbered(
            &mut self.function_of,
            &mut self.functions,
            (name, filename),
            |id| Function {
                id,
                name,
                system_name: name,
                filename,
            },
        )
    }

    fn mapping(&mut self, module: &str) -> u64 {
        let filename = self.string(&clean(module));
        numbered(&mut self.mapping_of, &mut self.mappings, filename, |id| {
            Mapping {
                id,
                filename,
                // Else pprof would look for the file to name the functions itself.
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
            }
        })
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.string_of.get(text) {
            return index;
        }
        let index = i64::try_from(self.strings.len()).unwrap_or(0);
        self.strings.push(text.to_owned());
        self.string_of.insert(text.to_owned(), index);
        index
    }
}

/// The number of `key` in its table, counted from 1: 0 means that there is none.
fn numbered<K: Eq + Hash, V>(
    known: &mut HashMap<K, u64>,
    table: &mut Vec<V>,
    key: K,
    make: impl FnOnce(u64) -> V,
) -> u64 {
    *known.entry(key).or_insert_with(|| {
        let id = table.len() as u64 + 1;
        table.push(make(id));
        id
    })
}
