//! Leaks connections through main -> handle_order -> get_client -> redis-rs.

use std::hint::black_box;
use std::io::{Read as _, Write as _, stdin, stdout};
use std::mem;

use anyhow::{Result, bail};
use redis::{Client, Connection};

#[inline(never)]
fn get_client(client: &Client) -> Result<Connection> {
    // Work after the call: a tail call would leave this function out of every stack.
    black_box(Ok(client.get_connection()?))
}

#[inline(never)]
fn handle_order(client: &Client) -> Result<()> {
    let mut connection = get_client(client)?;
    redis::cmd("PING").query::<String>(&mut connection)?;
    mem::forget(connection);
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, orders] = arguments.as_slice() else {
        bail!("usage: HOST PORT ORDERS")
    };
    let client = Client::open((host.as_str(), port.parse()?))?;
    stdout().write_all(b"up\n")?;
    stdin().read_exact(&mut [0])?;
    for _ in 0..orders.parse()? {
        handle_order(&client)?;
    }
    stdout().write_all(b"ready\n")?;
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
