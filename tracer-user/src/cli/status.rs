//! `connleak status`: what the daemon knows now.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::{
    args::{ControlArgs, Format, StatusArgs},
    daemon::config_file,
    output,
};
use crate::config::Config;
use crate::daemon::status::{OpenerInRedis, RedisStatus, Status, UsageStatus};
use crate::daemon::{Answer, Request, ask};
use crate::report::clean;

pub(super) async fn run(args: StatusArgs) -> Result<ExitCode> {
    let status = match ask(&socket(&args.control)?, Request::Status).await? {
        Answer::Status(status) => status,
        Answer::Error { message } => bail!("failed to ask for the status: {message}"),
        other => bail!("failed to understand the daemon's answer {other:?}; is it this version?"),
    };
    output::print(&match args.output {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&status)?),
        Format::Table => table(&status),
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn socket(args: &ControlArgs) -> Result<PathBuf> {
    if let Some(socket) = &args.socket {
        return Ok(socket.clone());
    }
    Ok(match config_file(args.config.clone()) {
        Some(file) => Config::read(&file)?.daemon.socket,
        None => Config::default().daemon.socket,
    })
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = put(&mut text, status);
    text
}

fn put(text: &mut String, status: &Status) -> std::fmt::Result {
    let dry_run = if status.dry_run { ", dry run" } else { "" };
    writeln!(
        text,
        "connleak {} (pid {}) since {}{dry_run}",
        clean(&status.version),
        status.pid,
        clean(&status.started_at)
    )?;
    if let Some(manual) = &status.manual {
        writeln!(
            text,
            "MANUAL for {:.0} s: {}",
            manual.for_s,
            clean(&manual.cause)
        )?;
        writeln!(text, "  nothing more is done until `connleak ack`")?;
    }
    for it in &status.subjects {
        let expected = match (it.expected_min, it.expected_max) {
            (Some(min), Some(max)) => format!(", {min}-{max} expected"),
            _ => String::new(),
        };
        let missing = if it.missing {
            ", clients are missing"
        } else {
            ""
        };
        writeln!(
            text,
            "{:<12} {:<9} {:>6} connections ({}/{}/{}{expected}){missing}",
            clean(&it.subject),
            it.level,
            it.count,
            it.warning,
            it.leak,
            it.critical
        )?;
        if let Some(blocked) = &it.blocked {
            writeln!(text, "  no action: {}", clean(blocked))?;
        }
    }
    if let Some(left) = status.cooldown_left_s {
        writeln!(text, "cooldown     {left:.0} s left")?;
    }
    if let Some(unit) = &status.acting {
        writeln!(text, "acting       on {}", clean(unit))?;
    }
    if let Some(unit) = &status.verifying {
        writeln!(text, "verifying    {}", clean(unit))?;
    }
    if let Some(redis) = &status.redis {
        put_redis(text, redis)?;
    }
    if let Some(usage) = &status.usage {
        put_usage(text, usage)?;
    }
    if !status.openers.is_empty() {
        writeln!(
            text,
            "\n{:>8} {:<16} {:<28} {:>5} {:>6} {:>9}  IN REDIS",
            "PID", "NAME", "UNIT", "PORT", "CONNS", "PER MIN"
        )?;
    }
    for it in &status.openers {
        writeln!(
            text,
            "{:>8} {:<16} {:<28} {:>5} {:>6} {:>+9.1}  {}",
            it.pid,
            clean(it.name.as_deref().unwrap_or("-")),
            clean(it.unit.as_deref().unwrap_or("-")),
            it.port,
            it.outstanding,
            it.growth_per_minute,
            it.redis.as_ref().map_or("-".to_owned(), in_redis)
        )?;
    }
    Ok(())
}

/// `redis-py 5.0.8, idle 340 s after get`
fn in_redis(it: &OpenerInRedis) -> String {
    let library = it
        .library
        .as_ref()
        .map(|library| format!("{}, ", clean(library)));
    let command = it.last_command.as_ref();
    let command = command.map(|command| format!(" after {}", clean(command)));
    format!(
        "{}idle {} s{}",
        library.unwrap_or_default(),
        it.idle_s,
        command.unwrap_or_default()
    )
}

fn put_usage(text: &mut String, usage: &UsageStatus) -> std::fmt::Result {
    let mib = |bytes: Option<u64>| {
        bytes.map_or("?".to_owned(), |bytes| {
            format!("{:.1}", bytes as f64 / f64::from(1 << 20))
        })
    };
    writeln!(
        text,
        "takes        {:.2} % of a CPU (last {:.0} s; {} % allowed in the background), \
         {} MiB resident",
        usage.cpu_percent,
        usage.cpu_window_s,
        usage.background_cpu_percent_max,
        mib(usage.resident_bytes)
    )?;
    writeln!(
        text,
        "  kernel     {} MiB, {} of {} sockets",
        mib(usage.kernel_bytes),
        usage.sockets,
        usage.sockets_max
    )
}

fn put_redis(text: &mut String, redis: &RedisStatus) -> std::fmt::Result {
    let cause = redis
        .cause
        .as_ref()
        .map(|cause| format!(": {}", clean(cause)));
    writeln!(
        text,
        "redis        {}{}",
        redis.state.name(),
        cause.unwrap_or_default()
    )?;
    if let Some(connected) = redis.connected_clients {
        let most = redis.max_clients.map(|most| format!(" of {most}"));
        let memory = redis
            .used_memory_bytes
            .map(|bytes| format!(", {} MiB used", bytes >> 20));
        let rejected = redis.rejected_connections.unwrap_or(0);
        writeln!(
            text,
            "  clients      {connected}{}, {rejected} were rejected{}",
            most.unwrap_or_default(),
            memory.unwrap_or_default()
        )?;
    }
    for probe in &redis.probes {
        for summary in probe.windows.iter().flatten() {
            writeln!(
                text,
                "  {:<12} {:>3} s: average {:.3} ms, P50 {:.3}, P99 {:.3}, max {:.3}",
                clean(&probe.name),
                summary.window_s,
                summary.average_us / 1e3,
                summary.p50_us as f64 / 1e3,
                summary.p99_us as f64 / 1e3,
                summary.max_us as f64 / 1e3
            )?;
        }
    }
    Ok(())
}
