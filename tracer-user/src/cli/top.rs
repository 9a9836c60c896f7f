//! `connleak top`: the openers, live in this terminal.

mod attached;
mod source;
mod traced;

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use ratatui::crossterm::event::{Event, EventStream};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};

use self::source::{Source, Told};
use super::{args::TopArgs, output};
use crate::{
    stacks::SiteRules,
    top::{Effect, Key, Paint, Screen, View, draw},
};

pub(super) async fn run(args: TopArgs) -> Result<ExitCode> {
    refuse_what_is_no_screen()?;
    // Before attaching: a signal that comes early must detach, too.
    let mut signals = Signals::listen()?;
    // Detaching takes a moment: the screen, taken later, is given back before.
    let mut source = Source::choose(&args).await?;
    let mut screen = Screen::enter()
        .context("failed to take the terminal; use `connleak trace` where there is none")?;
    watch(&mut screen, &mut source, &mut signals, args.interval).await?;
    Ok(ExitCode::SUCCESS)
}

/// Until somebody quits, a signal ends it, or the terminal is gone.
async fn watch(
    screen: &mut Screen,
    source: &mut Source,
    signals: &mut Signals,
    period: Duration,
) -> Result<()> {
    let rules = SiteRules::default();
    let paint = paint();
    let mut view = View::default();
    let mut events = EventStream::new();
    let mut due = ticks(period);
    let mut changed = true;
    loop {
        if std::mem::take(&mut changed) {
            screen.draw(|frame| draw(frame, &mut view, &rules, paint))?;
        }
        tokio::select! {
            event = events.next() => {
                changed = true;
                let key = match event {
                    Some(Ok(Event::Key(key))) => Key::of(key),
                    Some(Ok(_)) => None,
                    // The terminal hung up.
                    Some(Err(_)) | None => return Ok(()),
                };
                match key.map_or(Effect::Nothing, |key| view.press(key)) {
                    Effect::Nothing => {}
                    Effect::Look => source.look(view.listing()),
                    Effect::Redraw => screen.clear()?,
                    Effect::Suspend => screen.suspend()?,
                    Effect::Quit => return Ok(()),
                }
            }
            told = source.next() => {
                let told = told?;
                changed = !matches!(told, Told::Nothing);
                match told {
                    Told::Nothing => {}
                    Told::Sample(sample) => view.tell(*sample),
                    Told::Failure(error) => view.tell_failure(&format!("{error:#}")),
                }
            }
            _ = due.tick() => source.look(view.listing()),
            () = signals.any() => return Ok(()),
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn refuse_what_is_no_screen() -> Result<()> {
    if !io::stdout().is_terminal() {
        bail!("failed to draw on stdout: it is no terminal; use `connleak trace`");
    }
    if env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        bail!(
            "failed to draw on this terminal: TERM says that it cannot move its cursor; use \
             `connleak trace`"
        );
    }
    Ok(())
}

fn paint() -> Paint {
    // The first of these that is set decides (POSIX.1, 8.2).
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(env::var_os)
        .find(|value| !value.is_empty())
        .unwrap_or_default();
    let locale = locale.to_string_lossy().to_ascii_lowercase();
    Paint {
        color: output::style(false).color,
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}
