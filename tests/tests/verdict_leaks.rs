//! Verdicts of real clients: every leak is named with its line, and what only looks like one is not.
//!
//! A minute is made short by the configuration; the clients open five connections a second.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use connleak_tests::client::Client;
use connleak_tests::gate::{self, Need};
use connleak_tests::place;
use connleak_tests::report::{Opener, Report};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::Tracer;

const VERDICTS: &str = r#"
[verdict]
window = "6s"
old_after = "3s"
min_growth_per_minute = 20.0
held_after = "1s"
never_used_after = "2s"
idle_after = "1m"
churn_per_minute = 100.0
"#;
/// Two windows, and time for the clients to begin.
const WATCHED: &str = "15s";

fn client(way: &str, to: SocketAddr) -> Result<Client> {
    let script = place::client_sources().join("leaks.py");
    let mut command = Command::new(place::python()?);
    command.arg(script).arg(way);
    command.args([to.ip().to_string(), to.port().to_string()]);
    Client::spawn(&mut command).with_context(|| way.to_owned())
}

fn opener<'a>(report: &'a Report, way: &str, client: &Client) -> Result<&'a Opener> {
    let mut openers = report.of(client.pid());
    openers
        .next()
        .with_context(|| format!("{way} is not in the report"))
}

#[test]
fn real_leaks_are_named_with_their_line_and_real_pools_are_not() -> Result<()> {
    let test = "real_leaks_are_named_with_their_line_and_real_pools_are_not";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("connleak.toml");
    std::fs::write(&config, VERDICTS)?;
    let config = config.to_string_lossy();

    let server = RedisServer::start()?;
    let hasty = RedisServer::start_with(&["--timeout", "1"])?;
    let killing = RedisServer::start()?;
    let sentinel = RedisServer::sentinel_of(&server)?;
    let cluster = RedisServer::start_with(&["--cluster-enabled", "yes"])?;
    let servers = [&server, &hasty, &killing, &sentinel, &cluster];
    let ports = servers.map(RedisServer::port);
    let expected = [
        (
            "pool_per_request",
            &server,
            Some("leaking"),
            "handle_request",
        ),
        ("asyncio_pool", &server, Some("leaking"), "run_job"),
        ("exception_path", &server, Some("leaking"), "handle_order"),
        ("sentinel", &sentinel, Some("leaking"), "find_master"),
        ("cluster", &cluster, Some("leaking"), "cluster_client"),
        ("close_wait", &hasty, Some("close-wait"), "open_some"),
        ("reset", &killing, Some("held-after-reset"), "open_some"),
        ("warming_pool", &server, None, "serve"),
        ("cron", &server, None, "run_job"),
    ];
    let mut clients = Vec::new();
    for (way, server, ..) in expected {
        clients.push(client(way, server.v4())?);
    }
    let tracer = Tracer::start_with(&ports, &["--config", &config, "--for", WATCHED])?;
    for client in &mut clients {
        client.go()?;
    }
    let report = tracer.report()?;
    let mut wrong = Vec::new();
    for ((way, _, verdict, function), client) in expected.iter().zip(&clients) {
        let opener = opener(&report, way, client)?;
        let said = opener.verdict.as_deref();
        let is_right = match verdict {
            Some(verdict) => said == Some(verdict),
            None => !matches!(said, Some("leaking" | "close-wait" | "held-after-reset")),
        };
        let at_site = opener.stacks.iter().any(|stack| {
            let site = stack
                .site
                .as_ref()
                .and_then(|site| site.function.as_deref());
            site.is_some_and(|site| site.ends_with(function))
                && verdict.is_none_or(|verdict| stack.verdict.as_deref() == Some(verdict))
        });
        if !is_right || (verdict.is_some() && (!at_site || opener.facts.is_empty())) {
            let sites: Vec<_> = opener
                .stacks
                .iter()
                .map(|stack| (&stack.site, &stack.verdict, &stack.note))
                .collect();
            wrong.push(format!(
                "{way}: {said:?} because of {:?}, {} of {:?} outstanding, from {sites:?}",
                opener.facts, opener.outstanding, opener.opened
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
