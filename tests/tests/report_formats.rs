//! Every format of a report, read by a tool of its own field; of hostile names, too. No root.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use connleak_tests::browser::{Screen, look};
use connleak_tests::prometheus::check_metrics;
use connleak_tests::tool::read_with;
use connleak_tests::{place, tracer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Markup, quotes, formulas, separators, new lines, escape sequences, marks that turn writing round.
const HOSTILE: &str =
    "=1+1</script><b>'\"&;, {}\\ \n\r\t\x1b[2J\x07\u{9b}31m\u{202e}\u{2028}`$(id)|# 7";

/// A report in a folder that goes with it.
struct Kept {
    folder: TempDir,
    report: Value,
}

impl Kept {
    /// What the fixture's recording says.
    fn golden() -> Result<Self> {
        let text = std::fs::read_to_string(here("golden/leaky_pool.json"))?;
        Self::of(serde_json::from_str(&text)?)
    }

    /// The same, every text that a target chooses replaced.
    fn hostile() -> Result<Self> {
        let mut kept = Self::golden()?;
        let opener = &mut kept.report["openers"][0];
        for field in ["name", "unit", "user", "container"] {
            opener[field] = json!(HOSTILE);
        }
        opener["cmdline"] = json!([HOSTILE, HOSTILE]);
        for stack in opener["stacks"].as_array_mut().context("stacks")? {
            stack["note"] = json!(HOSTILE);
            stack["verdict"] = json!("leaking");
            stack["site"] = json!({"function": HOSTILE, "file": HOSTILE, "line": 7});
            for frame in stack["frames"].as_array_mut().context("frames")? {
                for field in ["function", "file", "module"] {
                    frame[field] = json!(HOSTILE);
                }
            }
        }
        Self::of(kept.report)
    }

    /// With a timeline, level changes and a restart.
    fn rich() -> Result<Self> {
        let mut kept = Self::golden()?;
        let opener = &mut kept.report["openers"][0];
        opener["peak_outstanding"] = json!(95);
        let mut then = opener.clone();
        then["sockets"] = json!([]);
        let at = |minute: u64| format!("2026-11-23T{:02}:{:02}:00Z", minute / 60, minute % 60);
        let sample = |minute: u64| {
            let outstanding = 5 + minute % 300 / 3;
            json!({"at": at(minute), "established_both_ends": outstanding * 2,
                   "established_client_ends": outstanding, "close_wait": 0,
                   "outstanding": outstanding})
        };
        kept.report["timeline"] = json!({
            "since": at(0), "until": at(599),
            "samples": (0..600).map(sample).collect::<Vec<_>>(),
            "level_changes": [
                {"at": at(150), "subject": "port 6379", "from": "HEALTHY", "to": "LEAK", "count": 55},
                {"at": at(290), "subject": "port 6379", "from": "LEAK", "to": "CRITICAL", "count": 101},
                {"at": at(301), "subject": "port 6379", "from": "CRITICAL", "to": "HEALTHY", "count": 5},
            ],
            "actions": [{
                "at": at(299), "id": 17, "action": "restart", "unit": "orders.service",
                "dry_run": false, "reason": "orders.service grows by 20 a minute",
                "outcome": {"outcome": "done"}, "verdict": {"verdict": "helped", "count": 5},
                "evidence_file": "/var/lib/connleak/evidence/20261123T045900Z-000017-orders.service.json",
                "openers": [then],
            }],
        });
        Self::of(kept.report)
    }

    fn of(report: Value) -> Result<Self> {
        let folder = TempDir::with_prefix("connleak-report-")?;
        std::fs::write(folder.path().join("report.json"), report.to_string())?;
        Ok(Self { folder, report })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// `connleak report --report FILE -o FORMAT`.
    fn printed(&self, format: &str) -> Result<Vec<u8>> {
        let ended = tracer::run(&[
            "report",
            "--report",
            &self.path("report.json"),
            "-o",
            format,
        ])?;
        ensure!(ended.status.success(), "{format}: {ended:?}");
        Ok(ended.stdout)
    }

    fn text(&self, format: &str) -> Result<String> {
        let text = String::from_utf8(self.printed(format)?)?;
        let obeyed = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{2028}".contains(c);
        ensure!(
            !text.contains(obeyed),
            "{format} has raw control characters: {text:?}"
        );
        Ok(text)
    }
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn python(script: &str, arguments: &[&str], input: &[u8]) -> Result<String> {
    let mut all = vec!["-c", script];
    all.extend(arguments);
    read_with(place::python()?, &all, input)
}

#[test]
fn json_fits_its_schema_and_the_schema_knows_every_field() -> Result<()> {
    const VALIDATE: &str = r#"
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
def close(node):
    if isinstance(node, dict):
        if "properties" in node:
            node["additionalProperties"] = False
        for value in node.values():
            close(value)
    elif isinstance(node, list):
        for value in node:
            close(value)
close(schema)
jsonschema.validate(json.load(sys.stdin), schema, jsonschema.Draft202012Validator)
"#;
    let schema = here("../tracer-user/dist/report.schema.json");
    let schema = schema.display().to_string();
    for kept in [Kept::golden()?, Kept::rich()?, Kept::hostile()?] {
        let text = kept.text("json")?;
        python(VALIDATE, &[&schema], text.as_bytes())?;
        let read: Value = serde_json::from_str(&text)?;
        ensure!(read == kept.report, "it came back changed: {text}");
    }
    Ok(())
}

#[test]
fn jq_reads_ndjson_line_by_line() -> Result<()> {
    for kept in [Kept::golden()?, Kept::hostile()?] {
        let text = kept.text("ndjson")?;
        ensure!(text.lines().count() == 4, "{text}");
        let filter = "select(.type == \"opener\") | .name, .outstanding, .stacks[0].outstanding";
        let read = read_with("jq", &["-c", filter], &text)?;
        let opener = &kept.report["openers"][0];
        let lines: Vec<Value> = read.lines().flat_map(serde_json::from_str).collect();
        ensure!(
            lines == [opener["name"].clone(), json!(4), json!(3)],
            "{read}"
        );
    }
    Ok(())
}

#[test]
fn csv_has_a_row_a_site_and_no_formulas() -> Result<()> {
    const READ: &str = r#"
import csv, io, json, sys
rows = list(csv.DictReader(io.StringIO(sys.stdin.read(), newline=""), strict=True))
print(json.dumps(rows))
"#;
    for kept in [Kept::golden()?, Kept::hostile()?] {
        let text = kept.text("csv")?;
        let rows: Vec<Value> = serde_json::from_str(&python(READ, &[], text.as_bytes())?)?;
        ensure!(rows.len() == 2, "{rows:?}");
        ensure!(
            rows[0]["pid"] == "5635" && rows[0]["outstanding"] == "3",
            "{rows:?}"
        );
        for (column, cell) in rows.iter().filter_map(Value::as_object).flatten() {
            let cell = cell.as_str().context("every column has a cell")?;
            ensure!(
                !cell.starts_with(['=', '+', '-', '@']),
                "{column} is a formula: {cell}"
            );
        }
    }
    Ok(())
}

#[test]
fn folded_lines_end_in_a_count_and_have_a_name_a_frame() -> Result<()> {
    let golden = Kept::golden()?.text("folded")?;
    ensure!(
        golden.contains("[no unit];leaky_pool;_start (leaky_pool);"),
        "{golden}"
    );
    ensure!(
        golden.contains("fill_pool (leaky_pool.c:22);get_client (leaky_pool.c:16);"),
        "{golden}"
    );
    let hostile = Kept::hostile()?.text("folded")?;
    for (text, frames) in [(&golden, 9), (&hostile, 9)] {
        let mut outstanding = 0;
        for line in text.lines() {
            let (stack, count) = line.rsplit_once(' ').context("a count")?;
            outstanding += count.parse::<u64>()?;
            ensure!(stack.split(';').count() == frames, "{line:?}");
        }
        ensure!(outstanding == 4, "{text}");
    }
    Ok(())
}

#[test]
fn a_flame_graph_is_well_formed_and_counts_connections() -> Result<()> {
    for kept in [Kept::golden()?, Kept::hostile()?] {
        let svg = kept.printed("flamegraph")?;
        read_with("xmllint", &["--noout", "--nonet", "-"], &svg)?;
        let count = "count(//*[local-name()='script'])";
        let scripts = read_with("xmllint", &["--xpath", count, "-"], &svg)?;
        ensure!(
            scripts.trim() == "1",
            "inferno's own script only: {scripts}"
        );
        let svg = String::from_utf8(svg)?;
        ensure!(
            svg.contains("(4 connections, 100%)") || svg.contains("4 connections"),
            "{svg}"
        );
    }
    Ok(())
}

#[test]
fn go_tool_pprof_reads_functions_counts_and_labels() -> Result<()> {
    for kept in [Kept::golden()?, Kept::hostile()?] {
        let file = kept.path("profile.pb.gz");
        std::fs::write(&file, kept.printed("pprof")?)?;
        let raw = read_with("go", &["tool", "pprof", "-raw", &file], "")?;
        ensure!(raw.contains("outstanding/count[dflt]"), "{raw}");
        ensure!(raw.contains("pid:[5635]"), "{raw}");
        ensure!(!raw.contains('\x1b') && !raw.contains('\u{9b}'), "{raw:?}");
        let top = read_with("go", &["tool", "pprof", "-top", "-cum", &file], "")?;
        ensure!(top.contains("100% of 4 total"), "{top}");
    }
    let kept = Kept::golden()?;
    let file = kept.path("profile.pb.gz");
    std::fs::write(&file, kept.printed("pprof")?)?;
    let lines = read_with("go", &["tool", "pprof", "-lines", "-traces", &file], "")?;
    for frame in ["leaky_pool.c:22", "leaky_pool.c:16", "name:  leaky_pool"] {
        ensure!(lines.contains(frame), "no {frame} in {lines}");
    }
    for (tag, is_there) in [("name=leaky_pool", true), ("name=another", false)] {
        let of_one = ["tool", "pprof", "-top", "-tagfocus", tag, &file];
        let top = read_with("go", &of_one, "")?;
        ensure!(top.contains("get_client") == is_there, "{tag}: {top}");
    }
    Ok(())
}

#[test]
fn metrics_are_what_prometheus_client_parses_and_promtool_has_nothing_against() -> Result<()> {
    const READ: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families as parse
samples = [s for f in parse(sys.stdin.read()) for s in f.samples]
print(json.dumps([[s.name, s.labels, s.value] for s in samples]))
"#;
    for (kept, unit) in [(Kept::golden()?, None), (Kept::hostile()?, Some(HOSTILE))] {
        let text = kept.text("prometheus")?;
        check_metrics(&text)?;
        let samples: Vec<(String, Value, f64)> =
            serde_json::from_str(&python(READ, &[], text.as_bytes())?)?;
        let of = |name: &str| samples.iter().filter(|it| it.0 == name).collect::<Vec<_>>();
        let established = of("connleak_established_connections");
        let ends: Vec<_> = established.iter().map(|it| (&it.1["end"], it.2)).collect();
        ensure!(
            ends == [(&json!("client"), 4.0), (&json!("server"), 4.0)],
            "{samples:?}"
        );
        let outstanding = of("connleak_outstanding_connections");
        ensure!(
            outstanding.len() == 1 && outstanding[0].2 == 4.0,
            "{samples:?}"
        );
        // A name that an opener chose is one label's value, whatever is in it.
        let told = outstanding[0].1["unit"].as_str();
        ensure!(told.is_some() == unit.is_some(), "{samples:?}");
        ensure!(
            told.is_none_or(|told| told.contains("</script>") && told.contains("'\"")),
            "{samples:?}"
        );
        ensure!(of("connleak_lost_events_total").len() == 6, "{samples:?}");
    }
    Ok(())
}

/// With `CONNLEAK_PICTURES`, pictures of the page stay in that folder, to be looked at.
#[test]
fn a_page_fits_a_phone_is_dark_where_wanted_and_runs_nothing() -> Result<()> {
    let screens = [
        ("wide", 1200, false),
        ("dark", 1200, true),
        ("phone", 390, false),
        ("phone-dark", 390, true),
    ];
    let mut elements = Vec::new();
    for (name, kept) in [
        ("golden", Kept::golden()?),
        ("rich", Kept::rich()?),
        ("hostile", Kept::hostile()?),
    ] {
        std::fs::write(kept.path("page.html"), kept.text("html")?)?;
        let opener = if name == "hostile" {
            "5635"
        } else {
            "leaky_pool"
        };
        for (screen, width, dark) in screens {
            // Each start of the browser costs seconds: the full page is looked at in all ways.
            if name != "rich" && screen != "phone" {
                continue;
            }
            let picture = format!("{name}-{screen}.png");
            let looks = Screen { width, dark };
            let seen = look(kept.folder.path(), "page.html", looks, opener, &picture)?;
            if let Some(folder) = std::env::var_os("CONNLEAK_PICTURES") {
                std::fs::copy(kept.path(&picture), Path::new(&folder).join(&picture))?;
            }
            ensure!(seen.has_text, "{picture}: no {opener}");
            ensure!(seen.scroll_width <= width, "{picture}: {seen:?}");
            ensure!(
                seen.scripts == 0 && seen.resources == 0,
                "{picture}: {seen:?}"
            );
            ensure!(seen.font >= 16.0, "{picture}: {seen:?}");
            let is_dark = seen.background == "rgb(15, 19, 24)";
            ensure!(is_dark == dark, "{picture}: {seen:?}");
            if width == 390 && !dark && name != "rich" {
                elements.push(seen.elements);
            }
        }
    }
    // Markup in names has become no markup of the page.
    ensure!(
        elements.len() == 2 && elements[1] <= elements[0] + 8,
        "{elements:?}"
    );
    Ok(())
}

#[test]
fn a_site_or_a_process_is_picked_out() -> Result<()> {
    let kept = Kept::golden()?;
    let file = kept.path("report.json");
    for (arguments, outstanding) in [
        (["--site", "leaky_pool.c:16"], 4),
        (["--site", "poll_ticks"], 0),
        (["--pid", "5635"], 4),
        (["--pid", "1"], 0),
        (["--unit", "orders"], 0),
    ] {
        let mut all = vec!["report", "--report", &file, "-o", "json"];
        all.extend(arguments);
        let ended = tracer::run(&all)?;
        ensure!(ended.status.success(), "{ended:?}");
        let report: Value = serde_json::from_slice(&ended.stdout)?;
        let openers = report["openers"].as_array().context("openers")?;
        let sum: u64 = openers
            .iter()
            .filter_map(|it| it["outstanding"].as_u64())
            .sum();
        ensure!(sum == outstanding, "{arguments:?}: {openers:#?}");
    }
    Ok(())
}
