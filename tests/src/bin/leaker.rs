//! A service with a leak, for the demo: handle_order() takes a connection and forgets to give it back.

use std::error::Error;
use std::io::Read as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, io, mem, thread};

use redis::{Client, Commands as _, Connection, RedisResult};

/// One order each.
const ORDER_EVERY: Duration = Duration::from_millis(100);
/// Every third order gives its connection back.
const CLOSED_ONE_IN: u64 = 3;
/// A leaker that was forgotten itself must end.
const AT_MOST: Duration = Duration::from_secs(3600);

static STDIN_CLOSED: AtomicBool = AtomicBool::new(false);

#[inline(never)]
fn get_client(client: &Client) -> RedisResult<Connection> {
    client.get_connection()
}

#[inline(never)]
fn handle_order(client: &Client, order: u64) -> RedisResult<()> {
    let mut connection = get_client(client)?;
    let _: () = connection.set("order:last", order)?;
    if !order.is_multiple_of(CLOSED_ONE_IN) {
        // The leak: nobody has the connection any more, and it stays open.
        mem::forget(connection);
    }
    Ok(())
}

fn serve(port: u16) -> RedisResult<()> {
    let client = Client::open(("127.0.0.1", port))?;
    let began = Instant::now();
    for order in 1.. {
        if STDIN_CLOSED.load(Ordering::Relaxed) || began.elapsed() > AT_MOST {
            break;
        }
        handle_order(&client, order)?;
        thread::sleep(ORDER_EVERY);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leaker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::args().nth(1).ok_or("usage: leaker PORT")?.parse()?;
    thread::spawn(|| {
        let mut ignored = Vec::new();
        let _ = io::stdin().read_to_end(&mut ignored);
        STDIN_CLOSED.store(true, Ordering::Relaxed);
    });
    serve(port)?;
    Ok(())
}
