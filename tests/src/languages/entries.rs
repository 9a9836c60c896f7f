//! Every client there is, one entry each.

use std::process::Command;

use anyhow::Result;

use super::programs::{go, hiredis, java, node, node_preloaded, php, php_fpm, python, ruby};
use super::{Call, Entry, Shows, call};
use crate::place;

const GO_CALLS: [Call; 3] = [
    call("getClient", "redis.Dial("),
    call("handleOrder", "client := getClient("),
    call("main", "handleOrder(address)\n\t}"),
];
const SNAKE_CASE: [&str; 3] = ["get_client", "handle_order", "main"];
const CAMEL_CASE: [&str; 3] = ["getClient", "handleOrder", "main"];
const JAVA_TEXTS: [&str; 3] = [
    "new Socket(",
    "client = getClient(",
    "handleOrder(host, port);\n        }",
];
/// At the first call, one inlined into the other: as after a while under load.
const COMPILED_JAVA: &[&str] = &[
    "-Xcomp",
    "-XX:CompileCommand=quiet",
    "-XX:CompileCommand=compileonly,Orders::*",
    "-XX:CompileCommand=inline,Orders::*",
];
const TOLD: Shows = Shows::Told("JavaScript frames as told by the process");

/// What each call's line begins with, from get_client outwards.
const fn calls(functions: [&'static str; 3], texts: [&'static str; 3]) -> [Call; 3] {
    [
        call(functions[0], texts[0]),
        call(functions[1], texts[1]),
        call(functions[2], texts[2]),
    ]
}

/// An entry that needs nothing, and shows everything.
fn entry(
    language: &'static str,
    client: &'static str,
    source: &'static str,
    command: fn(u16) -> Result<Command>,
    calls: [Call; 3],
) -> Entry {
    Entry {
        language,
        client,
        given: "",
        source,
        command,
        tracer_options: &[],
        connections: 1,
        calls,
        shows: Shows::Lines,
    }
}

/// In the order of the table.
#[must_use]
pub fn entries() -> Vec<Entry> {
    vec![
        Entry {
            given: "`-g`",
            ..entry(
                "C",
                "hiredis",
                "clients/leaks/hiredis.c",
                |_| hiredis(),
                calls(
                    SNAKE_CASE,
                    [
                        "redisConnect(host",
                        "client = get_client(",
                        "handle_order(argv",
                    ],
                ),
            )
        },
        entry(
            "Go",
            "redigo",
            "clients/leaks/redigo.go",
            |_| go("leak_redigo", &[]),
            GO_CALLS,
        ),
        entry(
            "Go, stripped",
            "redigo",
            "clients/leaks/redigo.go",
            |_| go("leak_redigo_stripped", &["-ldflags=-s -w"]),
            GO_CALLS,
        ),
        Entry {
            given: "line tables",
            ..entry(
                "Rust",
                "redis-rs",
                "src/bin/leak_redis_rs.rs",
                |_| Ok(Command::new(place::client("leak_redis_rs")?)),
                calls(
                    SNAKE_CASE,
                    [
                        "client.get_connection()",
                        "connection = get_client(",
                        "handle_order(&client)?;",
                    ],
                ),
            )
        },
        Entry {
            given: "`debug = \"limited\"`, `--stack-bytes=65536`",
            tracer_options: &["--stack-bytes=65536"],
            ..entry(
                "Rust",
                "redis-rs, tokio",
                "src/bin/leak_redis_rs_tokio.rs",
                |_| Ok(Command::new(place::client("leak_redis_rs_tokio")?)),
                calls(
                    SNAKE_CASE,
                    [
                        "client.get_multiplexed_async_connection()",
                        "connection = get_client(",
                        "Box::pin(handle_order(&client))",
                    ],
                ),
            )
        },
        entry(
            "Python",
            "redis-py",
            "clients/leaks/redis_py.py",
            |_| python("redis_py.py"),
            calls(
                SNAKE_CASE,
                [
                    "client.ping()",
                    "client = get_client(",
                    "handle_order(host, port)\n    print",
                ],
            ),
        ),
        entry(
            "Python",
            "redis-py, asyncio",
            "clients/leaks/redis_py_asyncio.py",
            |_| python("redis_py_asyncio.py"),
            calls(
                SNAKE_CASE,
                [
                    "client.ping()",
                    "client = await get_client(",
                    "await handle_order(",
                ],
            ),
        ),
        entry(
            "Python",
            "redis-py, a pool",
            "clients/leaks/redis_py_pool.py",
            |_| python("redis_py_pool.py"),
            calls(
                SNAKE_CASE,
                [
                    "pool.get_connection()",
                    "connection = get_client(",
                    "handle_order(pool)\n    print",
                ],
            ),
        ),
        entry(
            "Python",
            "redis-py, asyncio's pool",
            "clients/leaks/redis_py_asyncio_pool.py",
            |_| python("redis_py_asyncio_pool.py"),
            calls(
                SNAKE_CASE,
                [
                    "pool.get_connection()",
                    "connection = await get_client(",
                    "await handle_order(",
                ],
            ),
        ),
        Entry {
            connections: 2,
            ..entry(
                "Python",
                "kombu",
                "clients/leaks/kombu_leak.py",
                |_| python("kombu_leak.py"),
                calls(
                    SNAKE_CASE,
                    [
                        "client.default_channel",
                        "client = get_client(",
                        "handle_order(f\"redis",
                    ],
                ),
            )
        },
        Entry {
            connections: 2,
            ..entry(
                "Python",
                "celery",
                "clients/leaks/celery_leak.py",
                |_| python("celery_leak.py"),
                calls(
                    SNAKE_CASE,
                    [
                        "app.send_task(",
                        "client = get_client(",
                        "handle_order(app)\n    print",
                    ],
                ),
            )
        },
        entry(
            "PHP",
            "phpredis",
            "clients/leaks/phpredis.php",
            |_| php("phpredis.php"),
            calls(
                SNAKE_CASE,
                [
                    "$client->connect(",
                    "$client = get_client(",
                    "Orders::handle_order(",
                ],
            ),
        ),
        entry(
            "PHP",
            "Predis",
            "clients/leaks/predis.php",
            |_| php("predis.php"),
            calls(
                SNAKE_CASE,
                [
                    "$client->connect(",
                    "$client = get_client(",
                    "Orders::handle_order(",
                ],
            ),
        ),
        entry(
            "PHP, FPM",
            "phpredis",
            "clients/leaks/phpredis_fpm.php",
            |_| php_fpm("phpredis_fpm.php"),
            calls(
                SNAKE_CASE,
                [
                    "$client->pconnect(",
                    "= get_client(",
                    "handle_order($host, (int)",
                ],
            ),
        ),
        entry(
            "Java",
            "java.net.Socket",
            "clients/leaks/Orders.java",
            |_| java(&[]),
            calls(CAMEL_CASE, JAVA_TEXTS),
        ),
        entry(
            "Java, compiled",
            "java.net.Socket",
            "clients/leaks/Orders.java",
            |_| java(COMPILED_JAVA),
            calls(CAMEL_CASE, JAVA_TEXTS),
        ),
        Entry {
            given: "`connleak node-preload`",
            shows: TOLD,
            ..entry(
                "Node",
                "node-redis",
                "clients/leaks/node_redis.js",
                |port| node_preloaded("node_redis.js", port),
                calls(
                    CAMEL_CASE,
                    [
                        "client.connect()",
                        "client = await getClient(",
                        "handleOrder(host, Number(port))",
                    ],
                ),
            )
        },
        Entry {
            given: "`connleak node-preload`",
            shows: TOLD,
            ..entry(
                "Node",
                "ioredis",
                "clients/leaks/ioredis.js",
                |port| node_preloaded("ioredis.js", port),
                calls(
                    CAMEL_CASE,
                    [
                        "new Redis(",
                        "client = await getClient(",
                        "handleOrder(host, Number(port))",
                    ],
                ),
            )
        },
        Entry {
            shows: Shows::Note("Node connects from its event loop"),
            ..entry(
                "Node, no preload",
                "ioredis",
                "clients/leaks/ioredis.js",
                |_| node("ioredis.js"),
                calls(CAMEL_CASE, [""; 3]),
            )
        },
        entry(
            "Ruby",
            "redis gem",
            "clients/leaks/redis_rb.rb",
            |_| ruby(),
            calls(
                SNAKE_CASE,
                [
                    "client.ping",
                    "client = get_client(",
                    "handle_order(host, port.to_i)",
                ],
            ),
        ),
    ]
}
