//! Leaks connections through main -> handle_order -> get_client -> redis-rs over tokio.

use std::io::{Read as _, Write as _, stdin, stdout};
use std::mem;

use anyhow::{Result, bail};
use redis::Client;
use redis::aio::MultiplexedConnection;

async fn get_client(client: &Client) -> Result<MultiplexedConnection> {
    Ok(client.get_multiplexed_async_connection().await?)
}

async fn handle_order(client: &Client) -> Result<()> {
    let mut connection = get_client(client).await?;
    redis::cmd("PING")
        .query_async::<String>(&mut connection)
        .await?;
    mem::forget(connection);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, orders] = arguments.as_slice() else {
        bail!("usage: HOST PORT ORDERS")
    };
    let client = Client::open((host.as_str(), port.parse()?))?;
    stdout().write_all(b"up\n")?;
    stdin().read_exact(&mut [0])?;
    for _ in 0..orders.parse()? {
        // On the heap: the future is larger than what is copied of a stack.
        Box::pin(handle_order(&client)).await?;
    }
    stdout().write_all(b"ready\n")?;
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
