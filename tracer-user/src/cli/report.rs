//! `connleak report`: what is outstanding, from the daemon, the history, a recording or a kept report.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::{
    FAILED,
    args::{ControlArgs, JudgingArgs, ReportArgs},
    daemon::{config_file, judging},
    moment::{self, Moment},
    output, render,
    status::socket,
};
use crate::{
    config::Config,
    daemon::{Answer, Request, ask},
    history::{Reader, Window},
    pipeline::{self, Judging},
    report::{Listing, Report, Selection, clean, model::SCHEMA, timeline::Timeline},
};

const HOUR: Duration = Duration::from_secs(3600);
/// More than the report of a host whose every port is in use.
const MAX_REPORT_BYTES: u64 = 256 << 20;

pub(super) async fn run(args: ReportArgs) -> Result<ExitCode> {
    let judging = judging(&JudgingArgs {
        config: args.control.config.clone(),
    })?;
    let mut code = ExitCode::SUCCESS;
    let mut report = if let Some(file) = &args.recording {
        let (report, cut) = recorded(file, &judging)?;
        if let Some(cut) = cut {
            output::complain(&clean(&cut));
            code = ExitCode::from(FAILED);
        }
        report
    } else if let Some(file) = &args.report {
        kept(file)?
    } else if let Some(window) = window(&args) {
        let file = history_file(args.history.as_deref(), args.control.config.clone())?;
        Reader::open(&file)?.report(window)?
    } else {
        let mut report = of_daemon(&args.control).await?;
        let file = history_file(None, args.control.config.clone())?;
        report.timeline = last_hour(&file);
        report
    };
    let selection = Selection {
        pids: args.picked.pids,
        units: args.picked.units,
        namespaces: Vec::new(),
        sites: args.sites,
    };
    selection.apply(&mut report);
    render::print(
        &report,
        &judging.sites,
        args.printed.output,
        args.printed.sockets,
    )?;
    Ok(code)
}

/// The window of the history that is asked for, if one is.
fn window(args: &ReportArgs) -> Option<Window> {
    let now = Timestamp::now();
    if let Some([a, b]) = args.between.as_deref() {
        return Some(moment::window(*a, *b, now));
    }
    let whole = args.history.is_some().then_some(Moment::Ago(HOUR));
    let since = args.since.or(whole)?;
    Some(moment::window(since, Moment::Ago(Duration::ZERO), now))
}

/// The file that was named, or that the daemon's configuration names.
pub(super) fn history_file(named: Option<&Path>, config: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(file) = named {
        return Ok(file.to_owned());
    }
    Ok(match config_file(config) {
        Some(file) => Config::read(&file)?.history.file,
        None => Config::default().history.file,
    })
}

/// What the daemon's own history says of the last hour; none where it keeps none, or not for us.
fn last_hour(file: &Path) -> Option<Timeline> {
    let now = Timestamp::now();
    let window = moment::window(Moment::Ago(HOUR), Moment::Ago(Duration::ZERO), now);
    Reader::open(file).ok()?.timeline(window).ok()
}

/// What a recording says, and where it was cut.
pub(super) fn recorded(file: &Path, judging: &Judging) -> Result<(Report, Option<String>)> {
    let failed = || format!("failed to read recording {}", file.display());
    let replayed = pipeline::replay(file, judging).with_context(failed)?;
    let cut = replayed
        .cut
        .map(|cut| format!("{}: {cut}; the report says what stands before it", failed()));
    Ok((replayed.report, cut))
}

/// A report that was kept as JSON.
pub(super) fn kept(file: &Path) -> Result<Report> {
    let read = || -> Result<Report> {
        if !std::fs::metadata(file)?.is_file() {
            bail!("it is no regular file; copy it to one");
        }
        let input = BufReader::new(File::open(file)?.take(MAX_REPORT_BYTES));
        let report: Report = serde_json::from_reader(input)
            .context("it is no report of this version; keep one with `-o json`")?;
        if report.schema != SCHEMA {
            bail!("its schema is {}, known here is {SCHEMA}", report.schema);
        }
        Ok(report)
    };
    read().with_context(|| format!("failed to read report {}", file.display()))
}

async fn of_daemon(control: &ControlArgs) -> Result<Report> {
    match ask(
        &socket(control)?,
        Request::Report {
            listing: Listing::FULL,
        },
    )
    .await?
    {
        Answer::Report(report) => Ok(*report),
        Answer::Error { message } => bail!("failed to ask for the report: {message}"),
        other => bail!("failed to understand the daemon's answer {other:?}; is it this version?"),
    }
}
