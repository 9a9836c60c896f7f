//! `connleak fleet`: the worst openers over all machines, read from where their daemons write.

mod table;
mod view;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::time::{MissedTickBehavior, interval};

use self::view::{Fleet, Now};
use super::FAILED;
use super::args::{FleetArgs, Format};
use super::output;
use crate::config;
use crate::redis::connection::ConnectionError;
use crate::redis::endpoint::Endpoint;
use crate::redis::stream::{Stream, StreamEntry};
use crate::report::{clean, json_of};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Entries of one answer: a digest is a few KB.
const PAGE: usize = 200;
const REDRAW: Duration = Duration::from_secs(1);
/// Cursor home, and everything below it erased: less flicker than erasing first.
const CLEAR: &str = "\x1b[H\x1b[J";

/// One stream, and how far it was read.
struct Source {
    url: String,
    stream: Stream,
    read_to: Option<String>,
    /// Said once, not every second.
    failing: bool,
}

pub(super) async fn run(args: FleetArgs) -> Result<ExitCode> {
    let mut sources = Vec::new();
    for url in &args.redis {
        sources.push(Source::new(url, &args)?);
    }
    let mut fleet = Fleet::new(args.within);
    let failed = read_all(&mut sources, &mut fleet).await;
    if failed == sources.len() && !args.follow {
        bail!(
            "failed to read any stream; is one of {:?} the Redis of [export.stream]?",
            args.redis
        );
    }
    print(&mut fleet, &args)?;
    if args.follow {
        let mut redraw = interval(REDRAW);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        redraw.tick().await;
        loop {
            redraw.tick().await;
            read_all(&mut sources, &mut fleet).await;
            print(&mut fleet, &args)?;
        }
    }
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    })
}

/// How many of them could not be read.
async fn read_all(sources: &mut [Source], fleet: &mut Fleet) -> usize {
    let mut failed = 0;
    for source in sources {
        let read = source.read(fleet).await;
        failed += usize::from(read.is_err());
        match read {
            Ok(()) => source.failing = false,
            Err(error) if !source.failing => {
                source.failing = true;
                output::complain(&clean(&format!("{error:#}")));
            }
            Err(_) => {}
        }
    }
    failed
}

fn print(fleet: &mut Fleet, args: &FleetArgs) -> Result<()> {
    let view = fleet.view(Now::system(), args.limit);
    let text = match args.output {
        Format::Json if args.follow => serde_json::to_string(&view)? + "\n",
        Format::Json => json_of(&view)?,
        Format::Table => table::table(&view, output::style(false)),
    };
    let redraw = args.follow && args.output == Format::Table && io::stdout().is_terminal();
    output::print(&if redraw {
        format!("{CLEAR}{text}")
    } else {
        text
    })
}

impl Source {
    fn new(url: &str, args: &FleetArgs) -> Result<Self> {
        let endpoint = Endpoint::new(&config::Redis {
            url: url.to_owned(),
            username: args.username.clone(),
            password_file: args.password_file.clone(),
            timeout: TIMEOUT,
            ..config::Redis::default()
        })?;
        Ok(Self {
            url: url.to_owned(),
            stream: Stream::new(endpoint, &*args.key),
            read_to: None,
            failing: false,
        })
    }

    /// What is new in it; at first, what is not older than the fleet looks back.
    async fn read(&mut self, fleet: &mut Fleet) -> Result<()> {
        let failed =
            |error: ConnectionError| anyhow!("failed to read the stream at {}: {error}", self.url);
        if let Some(read_to) = &mut self.read_to {
            loop {
                let entries = self.stream.newer(read_to, PAGE).await;
                let entries = entries.map_err(failed)?;
                let Some(last) = entries.last() else {
                    return Ok(());
                };
                read_to.clone_from(&last.id);
                take(fleet, &entries);
            }
        }
        let horizon_ms = Now::system().unix_ms.saturating_sub(fleet.within_ms());
        let mut before: Option<String> = None;
        loop {
            let entries = self.stream.older(before.as_deref(), PAGE).await;
            let entries = entries.map_err(failed)?;
            if self.read_to.is_none() {
                let newest = entries.first().map(|entry| entry.id.clone());
                // A stream that is empty yet begins at its first entry.
                self.read_to = Some(newest.unwrap_or_else(|| "0-0".to_owned()));
            }
            take(fleet, &entries);
            match entries.last() {
                Some(oldest) if view::unix_ms(&oldest.id) >= horizon_ms => {
                    before = Some(oldest.id.clone());
                }
                _ => return Ok(()),
            }
        }
    }
}

fn take(fleet: &mut Fleet, entries: &[StreamEntry]) {
    for entry in entries {
        fleet.take(&entry.id, entry.field("report").unwrap_or(""));
    }
}
