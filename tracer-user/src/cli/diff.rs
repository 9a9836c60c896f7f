//! `connleak diff`: what grew between two reports or two moments of the history.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::{
    args::{DiffArgs, Format},
    moment, output,
    report::{history_file, kept, recorded},
};
use crate::{
    history::{Reader, Window},
    pipeline::Judging,
    report::{self, Report, clean},
};

/// More is outstanding after than before, and the user calls that a failure.
const GREW: u8 = 1;
/// A moment's sample may be so much older.
const SAMPLE_AGE_MAX_S: i64 = 600;

pub(super) fn run(args: &DiffArgs) -> Result<ExitCode> {
    let before = side(&args.before, args)?;
    let after = side(&args.after, args)?;
    let diff = report::diff(&before, &after);
    output::print(&match args.output {
        Format::Json => report::json_line(&diff)?,
        Format::Table => report::diff_table(&diff),
    })?;
    Ok(match args.fail_on_growth && diff.growth > 0 {
        true => ExitCode::from(GREW),
        false => ExitCode::SUCCESS,
    })
}

fn side(text: &str, args: &DiffArgs) -> Result<Report> {
    let path = Path::new(text);
    if path.exists() {
        return of_file(path);
    }
    let moment = moment::parse(text).map_err(|wrong| {
        anyhow::anyhow!("failed to find report {text}: there is no such file, and {wrong}")
    })?;
    let at_s = moment.seconds(Timestamp::now());
    let file = history_file(args.history.as_deref(), args.config.clone())?;
    let window = Window {
        since_s: at_s.saturating_sub(SAMPLE_AGE_MAX_S),
        until_s: at_s,
    };
    Ok(Reader::open(&file)?.report(window)?)
}

/// A report that was kept as JSON, or a recording.
fn of_file(path: &Path) -> Result<Report> {
    let mut first = [0];
    let is_json = File::open(path)
        .and_then(|mut file| file.read(&mut first))
        .with_context(|| format!("failed to read report {}", path.display()))
        .map(|_| first[0].is_ascii_whitespace() || first[0] == b'{')?;
    if is_json {
        return kept(path);
    }
    let (report, cut) = recorded(path, &Judging::default())?;
    if let Some(cut) = cut {
        output::complain(&clean(&cut));
    }
    Ok(report)
}
