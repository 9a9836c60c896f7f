//! A redis-rs client with a pool that hands out more than it takes back.

use std::hint::black_box;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use redis::{Client, Connection};

#[inline(never)]
fn lease_connection(client: &Client) -> Result<Connection> {
    // black_box after the call: a tail call would take this frame off the stack.
    black_box(client.get_connection().context("failed to connect"))
}

#[inline(never)]
fn fill_lease_pool(client: &Client, opened: usize) -> Result<Vec<Connection>> {
    black_box((0..opened).map(|_| lease_connection(client)).collect())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, opened, closed] = arguments.as_slice() else {
        anyhow::bail!("usage: HOST PORT OPENED CLOSED")
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    let client = Client::open(format!("redis://{host}:{port}"))?;
    let mut pool = fill_lease_pool(&client, opened.parse()?)?;
    for connection in &mut pool {
        redis::cmd("PING").query::<String>(connection)?;
    }
    drop(pool.drain(..closed.parse::<usize>()?));
    let mut out = std::io::stdout();
    out.write_all(b"ready\n")?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
