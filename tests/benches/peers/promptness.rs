//! Promptness: from the 100th connection to the word that it is critical, beside netstat in a loop.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use connleak_tests::daemon::Home;
use connleak_tests::server::RedisServer;
use connleak_tests::{child, wait};

use crate::Plan;
use crate::figures::{Figures, Quantity};
use crate::side::{DAEMON, NETSTAT_2_S, NETSTAT_30_S};

const WORKLOAD: &str = "promptness";
/// Both ends are on this host and count: with one connection more there are 100.
const BELOW: usize = 49;
const BOTH_ENDS: usize = 2;
/// How a level begins that is the highest.
const WORD: &str = "-> CRITICAL";

pub(crate) fn run(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let redis = RedisServer::start()?;
    let _below = (0..BELOW)
        .map(|_| TcpStream::connect(redis.v4()))
        .collect::<std::io::Result<Vec<_>>>()?;
    for (side, period_s) in [(NETSTAT_2_S, 2), (NETSTAT_30_S, 30)] {
        eprintln!("peers: {WORKLOAD} 1-{0}/{0} {side}", plan.rounds);
        polled(&redis, side, Duration::from_secs(period_s), plan, figures)?;
    }
    told(&redis, plan, figures)
}

/// One connection opens, and loops that are each at another place of their period see it.
fn polled(
    redis: &RedisServer,
    side: &str,
    period: Duration,
    plan: &Plan,
    figures: &mut Figures,
) -> Result<()> {
    let loops = (0..plan.rounds)
        .map(|turn| Polling::start(redis.port(), period, period * turn / plan.rounds))
        .collect::<Result<Vec<_>>>()?;
    // The last to start has looked once, and the first may be about to look again.
    thread::sleep(period);
    let crossed = Instant::now();
    let _crossing = TcpStream::connect(redis.v4())?;
    for polling in loops {
        let took = polling.told(period)?.checked_duration_since(crossed);
        let took = took.with_context(|| format!("{side} spoke before there was a reason"))?;
        figures.add(WORKLOAD, side, Quantity::Told, took.as_secs_f64() * 1000.0);
    }
    Ok(())
}

/// With no time that a level must hold, as a loop has none.
fn told(redis: &RedisServer, plan: &Plan, figures: &mut Figures) -> Result<()> {
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    let daemon = home.start()?;
    daemon.says("redis is up")?;
    for turn in 1..=plan.rounds as usize {
        eprintln!("peers: {WORKLOAD} {turn}/{} {DAEMON}", plan.rounds);
        daemon.counts(BELOW * BOTH_ENDS)?;
        let began = Instant::now();
        let _crossing = TcpStream::connect(redis.v4())?;
        let line = wait::until("the level to be said", || daemon.nth(WORD, turn))?;
        let took = line.at.duration_since(began).as_secs_f64() * 1000.0;
        figures.add(WORKLOAD, DAEMON, Quantity::Told, took);
    }
    Ok(())
}

/// The loop that people had: netstat, and sleep.
struct Polling {
    child: Child,
    told: Receiver<(Instant, String)>,
}

impl Polling {
    fn start(port: u16, period: Duration, later: Duration) -> Result<Self> {
        let critical = (BELOW + 1) * BOTH_ENDS;
        let script = format!(
            "sleep {}; while :; do \
             count=$(netstat -tn | grep ':{port} ' | grep -c ESTABLISHED); \
             [ \"$count\" -ge {critical} ] && echo CRITICAL && exit; sleep {}; done",
            later.as_secs_f64(),
            period.as_secs_f64()
        );
        let mut command = Command::new("sh");
        let mut child = child::bound(&mut command)
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start a loop of netstat")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            // An end without a word is an empty line.
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = tell.send((Instant::now(), line));
        });
        Ok(Self { child, told })
    }

    /// When it said that there are too many.
    fn told(&self, period: Duration) -> Result<Instant> {
        let told = self.told.recv_timeout(period + wait::patience());
        let (at, line) = told.context("failed to hear of a loop of netstat")?;
        ensure!(line.trim() == "CRITICAL", "a loop of netstat said {line:?}");
        Ok(at)
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
