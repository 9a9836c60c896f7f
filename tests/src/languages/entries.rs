//! Every client there is, one entry each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Call, Entry, Shows, call};
use crate::place;

const GO_CALLS: [Call; 3] = [
    call("getClient", "redis.Dial("),
    call("handleOrder", "client := getClient("),
    call("main", "handleOrder(address)\n\t}"),
];
const NODE_CALLS: [Call; 3] = [
    call("getClient", ""),
    call("handleOrder", ""),
    call("main", ""),
];
const NODE_SHOWS: Shows = Shows::Note("Node connects from its event loop");
const SNAKE_CASE: [&str; 3] = ["get_client", "handle_order", "main"];

/// In the order of the table.
#[must_use]
pub fn entries() -> Vec<Entry> {
    vec![
        Entry {
            language: "C",
            client: "hiredis",
            given: "`-g`",
            source: "clients/leaks/hiredis.c",
            command: hiredis,
            tracer_options: &[],
            calls: [
                call(SNAKE_CASE[0], "redisConnect(host"),
                call(SNAKE_CASE[1], "client = get_client("),
                call(SNAKE_CASE[2], "handle_order(argv"),
            ],
            shows: Shows::Lines,
        },
        Entry {
            language: "Go",
            client: "redigo",
            given: "",
            source: "clients/leaks/redigo.go",
            command: || go("leak_redigo", &[]),
            tracer_options: &[],
            calls: GO_CALLS,
            shows: Shows::Lines,
        },
        Entry {
            language: "Go, stripped",
            client: "redigo",
            given: "",
            source: "clients/leaks/redigo.go",
            command: || go("leak_redigo_stripped", &["-ldflags=-s -w"]),
            tracer_options: &[],
            calls: GO_CALLS,
            shows: Shows::Lines,
        },
        Entry {
            language: "Rust",
            client: "redis-rs",
            given: "line tables",
            source: "src/bin/leak_redis_rs.rs",
            command: || Ok(Command::new(place::client("leak_redis_rs")?)),
            tracer_options: &[],
            calls: [
                call(SNAKE_CASE[0], "client.get_connection()"),
                call(SNAKE_CASE[1], "connection = get_client("),
                call(SNAKE_CASE[2], "handle_order(&client)?;"),
            ],
            shows: Shows::Lines,
        },
        Entry {
            language: "Rust",
            client: "redis-rs, tokio",
            given: "line tables, `--stack-bytes=65536`",
            source: "src/bin/leak_redis_rs_tokio.rs",
            command: || Ok(Command::new(place::client("leak_redis_rs_tokio")?)),
            tracer_options: &["--stack-bytes=65536"],
            calls: [
                call("", "client.get_multiplexed_async_connection()"),
                call("", "connection = get_client("),
                call("", "Box::pin(handle_order(&client))"),
            ],
            shows: Shows::Places("rustc's debug information calls each `{async_fn#0}`"),
        },
        Entry {
            language: "Python",
            client: "redis-py",
            given: "",
            source: "clients/leaks/redis_py.py",
            command: || python("redis_py.py"),
            tracer_options: &[],
            calls: [
                call(SNAKE_CASE[0], "client.ping()"),
                call(SNAKE_CASE[1], "client = get_client("),
                call(SNAKE_CASE[2], "handle_order(host, port)\n    print"),
            ],
            shows: Shows::Lines,
        },
        Entry {
            language: "Python",
            client: "redis-py, asyncio",
            given: "",
            source: "clients/leaks/redis_py_asyncio.py",
            command: || python("redis_py_asyncio.py"),
            tracer_options: &[],
            calls: [
                call(SNAKE_CASE[0], "client.ping()"),
                call(SNAKE_CASE[1], "client = await get_client("),
                call(SNAKE_CASE[2], "await handle_order("),
            ],
            shows: Shows::Lines,
        },
        Entry {
            language: "PHP",
            client: "phpredis",
            given: "",
            source: "clients/leaks/phpredis.php",
            command: php,
            tracer_options: &[],
            calls: [
                call(SNAKE_CASE[0], "$client->connect("),
                call(SNAKE_CASE[1], "$client = get_client("),
                call(SNAKE_CASE[2], "Orders::handle_order("),
            ],
            shows: Shows::Lines,
        },
        Entry {
            language: "Java",
            client: "java.net.Socket",
            given: "`--java-perfmap`, `-XX:+PreserveFramePointer`, compiled code",
            source: "clients/leaks/Orders.java",
            command: java,
            tracer_options: &["--java-perfmap"],
            calls: [
                call("getClient", "new Socket("),
                call("handleOrder", "client = getClient("),
                call("main", "handleOrder(host, port);\n        }"),
            ],
            shows: Shows::Functions("a perf map has none"),
        },
        Entry {
            language: "Node",
            client: "node-redis",
            given: "",
            source: "clients/leaks/node_redis.js",
            command: || node("node_redis.js"),
            tracer_options: &[],
            calls: NODE_CALLS,
            shows: NODE_SHOWS,
        },
        Entry {
            language: "Node",
            client: "ioredis",
            given: "",
            source: "clients/leaks/ioredis.js",
            command: || node("ioredis.js"),
            tracer_options: &[],
            calls: NODE_CALLS,
            shows: NODE_SHOWS,
        },
        Entry {
            language: "Ruby",
            client: "redis gem",
            given: "",
            source: "clients/leaks/redis_rb.rb",
            command: ruby,
            tracer_options: &[],
            calls: [
                call(SNAKE_CASE[0], "client.ping"),
                call(SNAKE_CASE[1], "client = get_client("),
                call(SNAKE_CASE[2], "handle_order(host, port.to_i)"),
            ],
            shows: Shows::Note("Ruby methods have no names"),
        },
    ]
}

/// A source of `tests/clients/leaks`.
fn leak_source(name: &str) -> PathBuf {
    place::client_sources().join("leaks").join(name)
}

/// Has a compiler write `name` into a folder of this process's own: test programs compile at the
/// same time. Returns its path.
fn compiled(name: &str, compile: impl FnOnce(&Path) -> Command) -> Result<PathBuf> {
    let dir = place::scratch("leaks")?;
    let program = dir.join(name);
    let mut command = compile(&program);
    let output = command
        .output()
        .with_context(|| format!("failed to run {command:?}; run `cargo xtask setup`"))?;
    ensure!(
        output.status.success(),
        "failed to compile {name}: {}; run `cargo xtask setup`",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(program)
}

fn hiredis() -> Result<Command> {
    let program = compiled("leak_hiredis", |program| {
        let mut gcc = Command::new("gcc");
        gcc.args([
            "-O2",
            "-g",
            "-fomit-frame-pointer",
            "-Wall",
            "-Werror",
            "-o",
        ])
        .arg(program)
        .arg(leak_source("hiredis.c"))
        .arg("-lhiredis");
        gcc
    })?;
    Ok(Command::new(program))
}

fn python(script: &str) -> Result<Command> {
    let mut command = Command::new(place::python()?);
    command.arg(leak_source(script));
    Ok(command)
}

/// Debian keeps Go's libraries as sources, in a workspace of the old kind.
fn go(name: &str, flags: &[&str]) -> Result<Command> {
    let program = compiled(name, |program| {
        let mut go = Command::new("go");
        go.arg("build")
            .args(flags)
            .arg("-o")
            .arg(program)
            .arg(leak_source("redigo.go"))
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOFLAGS", "");
        go
    })?;
    Ok(Command::new(program))
}

fn php() -> Result<Command> {
    let mut command = Command::new("php");
    command.arg(leak_source("phpredis.php"));
    Ok(command)
}

fn java() -> Result<Command> {
    let classes = compiled("orders", |classes| {
        let mut javac = Command::new("javac");
        javac.arg("-d").arg(classes).arg(leak_source("Orders.java"));
        javac
    })?;
    let mut command = Command::new("java");
    // Compiled at their first call, and each a frame of its own: as after a while under load.
    command.args([
        "-XX:+PreserveFramePointer",
        "-Xcomp",
        "-XX:CompileCommand=quiet",
        "-XX:CompileCommand=compileonly,Orders::*",
        "-XX:CompileCommand=dontinline,Orders::*",
        "-cp",
    ]);
    command.arg(classes).arg("Orders");
    Ok(command)
}

fn node(script: &str) -> Result<Command> {
    let mut command = Command::new("node");
    command
        .arg(leak_source(script))
        .env("NODE_PATH", place::node_modules()?);
    Ok(command)
}

fn ruby() -> Result<Command> {
    let mut command = Command::new("ruby");
    command.arg(leak_source("redis_rb.rb"));
    Ok(command)
}
