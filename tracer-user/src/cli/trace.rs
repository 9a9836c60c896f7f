//! `connleak trace`: live while it runs, a report at the end.

use std::{
    fs,
    io::{self, IsTerminal},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    FAILED,
    args::{ReportFormat, TraceArgs},
    daemon::judging,
    output, render,
};
use crate::{
    kernel::{Hook, Options, Probes},
    memory,
    pipeline::{Recorder, Tracer},
    report::{self, Listing, Report, Selection, clean},
    stacks::SiteRules,
};

/// The last stacks have this long to be named before the report is made without them.
const LAST_STACKS: Duration = Duration::from_secs(10);
const REDRAW: Duration = Duration::from_secs(1);
/// The live table may tell holders that are so old; the last report does not.
const HOLDERS_AGE_MAX: Duration = Duration::from_secs(5);
/// A day that never ends: `--reconcile 0s`.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

pub(super) async fn run(args: TraceArgs) -> Result<ExitCode> {
    for pid in &args.picked.pids {
        if !fs::exists(format!("/proc/{pid}"))? {
            bail!("failed to find process {pid}: no such process; list them with `ps`");
        }
    }
    let judging = judging(&args.judging)?;
    let rules = judging.sites.clone();
    // Before attaching: a signal that comes early must detach, too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let recorder = args.record.as_deref().map(Recorder::create).transpose()?;
    let mut code = ExitCode::SUCCESS;
    let mut tracer = Tracer::start_recorded(&options(&args), judging, recorder)?;
    tracer.allow_java_perfmap(args.java_perfmap);
    announce(&args.ports.ports, tracer.probes());

    let live = args.printed.output == ReportFormat::Table && io::stdout().is_terminal();
    let started = Instant::now();
    let deadline = args.duration.map(|duration| started + duration);
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let period = if args.reconcile.is_zero() {
        NEVER
    } else {
        args.reconcile
    };
    let mut reconcile = interval(period);
    reconcile.set_missed_tick_behavior(MissedTickBehavior::Skip);
    reconcile.tick().await;
    loop {
        complain_of_recording(&mut tracer, &mut code);
        tokio::select! {
            step = tracer.step() => step?,
            _ = redraw.tick(), if live => {
                let report = tracer.glance(Listing::FULL, HOLDERS_AGE_MAX)?;
                let report = filtered(report, &args);
                output::print(&frame(&report, &rules, &args, started))?;
            }
            _ = reconcile.tick() => {
                tracer.reconcile()?;
                memory::give_back();
            }
            () = until(deadline) => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    tracer.drain();
    tracer.settle_stacks(LAST_STACKS).await;
    tracer.reconcile()?;
    let report = filtered(tracer.finish()?, &args);
    complain_of_recording(&mut tracer, &mut code);
    if live {
        output::print(CLEAR)?;
    }
    render::print(&report, &rules, args.printed.output, args.printed.sockets)?;
    Ok(code)
}

/// The trace is worth finishing without its recording, but did not do all that was asked.
fn complain_of_recording(tracer: &mut Tracer, code: &mut ExitCode) {
    if let Some(failure) = tracer.take_recording_failure() {
        output::complain(&clean(&format!("{failure:#}; tracing goes on without it")));
        *code = ExitCode::from(FAILED);
    }
}

fn options(args: &TraceArgs) -> Options {
    Options {
        ports: args.ports.ports.clone(),
        family: args.hooks.probes.forced(),
        btf: args.hooks.btf.btf.clone(),
        stack_bytes: args.stack_bytes,
        max_sockets: args.max_sockets,
        ring_bytes: args.ring_bytes,
        stacks_per_second: args.stacks_per_second,
        follow_children: false,
    }
}

/// `tracing :6379 (connect by state, close by state+destroy, accept by listener)`, and what else is
/// not as it could be.
pub(super) fn announce(ports: &[u16], probes: &Probes) {
    let ports: Vec<String> = ports.iter().map(|port| format!(":{port}")).collect();
    let hooks: Vec<String> = [Hook::Connect, Hook::Close, Hook::Accept]
        .into_iter()
        .filter_map(|hook| Some(format!("{hook} by {}", probes.taken_by(hook)?)))
        .collect();
    output::say(&format!(
        "tracing {} ({})",
        ports.join(" "),
        hooks.join(", ")
    ));
    for refusal in probes.refusals() {
        output::say(&format!("note: {}", clean(&refusal)));
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Only the openers that were asked for; the totals stay those of the host.
fn filtered(mut report: Report, args: &TraceArgs) -> Report {
    let selection = Selection {
        pids: args.picked.pids.clone(),
        units: args.picked.units.clone(),
        namespaces: args.namespaces.clone(),
        sites: Vec::new(),
    };
    selection.apply(&mut report);
    report
}

/// Cursor home, and everything below it erased: less flicker than erasing first.
const CLEAR: &str = "\x1b[H\x1b[J";

/// The live table, cut to the terminal's height.
fn frame(report: &Report, rules: &SiteRules, args: &TraceArgs, started: Instant) -> String {
    let elapsed = humantime::format_duration(Duration::from_secs(started.elapsed().as_secs()));
    let left = args
        .duration
        .map(|duration| format!(" of {}", humantime::format_duration(duration)))
        .unwrap_or_default();
    let events = report.totals.events.map_or(0, |events| events.delivered);
    let table = report::table(report, rules, output::style(args.printed.sockets));
    let rows = output::terminal_size().map_or(usize::MAX, |(_, rows)| rows);
    let mut lines: Vec<&str> = table.lines().collect();
    let hidden = lines.len().saturating_sub(rows.saturating_sub(3));
    lines.truncate(lines.len() - hidden);
    let more = if hidden > 0 {
        format!("… {hidden} more lines in the final report\n")
    } else {
        String::new()
    };
    format!(
        "{CLEAR}tracing for {}{left}, {events} events; Ctrl-C ends it with the report\n{}\n{more}",
        clean(&elapsed.to_string()),
        lines.join("\n"),
    )
}
