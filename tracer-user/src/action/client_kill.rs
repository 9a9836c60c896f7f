//! A client-kill cuts off a unit's leaked, idle connections, and no others.

use std::net::SocketAddr;
use std::time::Duration;

use redis::cmd;
use serde::{Deserialize, Serialize};

use crate::policy::decision::Outcome;
use crate::redis::clients::{Client, ClientList};
use crate::redis::connection::{Connection, ConnectionError};

/// Cut off in one go; the next attempt takes the next ones.
const MAX_KILLS: usize = 1_000;

/// What was found and done, for the evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillRecord {
    /// The client's address of each that was cut off.
    pub killed: Vec<SocketAddr>,
    /// Idle for less than asked.
    pub busy: u32,
    /// Subscribers, replicas, waiting or transacting ones.
    pub at_work: u32,
    /// Not in CLIENT LIST: closed meanwhile, or another Redis.
    pub unknown: u32,
    /// Gone between the list and the kill.
    pub gone: u32,
}

/// Cuts off those of `sockets` (client ends, local then remote) that were idle for `idle`.
pub async fn run(
    connection: &mut Connection,
    sockets: &[(SocketAddr, SocketAddr)],
    idle: Duration,
) -> (Outcome, KillRecord) {
    let mut record = KillRecord::default();
    let list = match ClientList::ask(connection).await {
        Ok(list) => list,
        Err(error) => return (failed("list redis' clients", &error, &record), record),
    };
    let chosen: Vec<&Client> = sockets
        .iter()
        .filter_map(|(local, remote)| choose(&list, *local, *remote, idle, &mut record))
        .take(MAX_KILLS)
        .collect();
    for client in chosen {
        let mut kill = cmd("CLIENT");
        // Both: an id alone could be that of another Redis after a failover, an address alone one
        // that was reused meanwhile.
        kill.arg("KILL")
            .arg("ID")
            .arg(client.id)
            .arg("ADDR")
            .arg(client.addr.to_string());
        match connection.query::<u64>(&kill).await {
            Ok(0) => record.gone = record.gone.saturating_add(1),
            Ok(_) => record.killed.push(client.addr),
            Err(error) => return (failed("kill a client", &error, &record), record),
        }
    }
    if record.killed.is_empty() {
        let error = format!(
            "failed to kill a client of {}: {} are not idle for {idle:?}, {} are at work, {} unknown to redis",
            sockets.len(),
            record.busy,
            record.at_work,
            record.unknown,
        );
        // Counted as done: it is this rung that does not help, and the next one that is wanted.
        return (Outcome::Uncertain { error }, record);
    }
    (Outcome::Done, record)
}

fn choose<'a>(
    list: &'a ClientList,
    local: SocketAddr,
    remote: SocketAddr,
    idle: Duration,
    record: &mut KillRecord,
) -> Option<&'a Client> {
    let Some(client) = list.find(local, remote) else {
        record.unknown = record.unknown.saturating_add(1);
        return None;
    };
    if client.is_ours() || client.is_at_work() {
        record.at_work = record.at_work.saturating_add(1);
        return None;
    }
    if client.idle_s < idle.as_secs() {
        record.busy = record.busy.saturating_add(1);
        return None;
    }
    Some(client)
}

fn failed(verb: &str, error: &ConnectionError, record: &KillRecord) -> Outcome {
    let error = format!("failed to {verb}: {error}");
    match record.killed.is_empty() {
        true => Outcome::NotBegun { error },
        false => Outcome::Uncertain { error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::live::Server;

    async fn alive(connection: &mut Connection) -> bool {
        connection.query::<String>(&cmd("PING")).await.is_ok()
    }

    async fn named(server: &Server, name: &str) -> Connection {
        let mut connection = server.connect().await;
        let mut rename = cmd("CLIENT");
        rename.arg("SETNAME").arg(name);
        connection.query::<()>(&rename).await.expect("named");
        connection
    }

    #[tokio::test]
    async fn only_the_idle_ones_of_the_unit_are_cut_off() {
        let server = Server::start(&[]);
        let mut ours = server.connect().await;
        let mut leaked = named(&server, "orders").await;
        let mut other = named(&server, "other").await;
        let unknown = (
            "127.0.0.1:1".parse().expect("an address"),
            other.ends().expect("TCP").1,
        );
        let sockets = [
            leaked.ends().expect("TCP"),
            ours.ends().expect("TCP"),
            unknown,
        ];

        let hour = Duration::from_secs(3600);
        let (outcome, record) = run(&mut ours, &sockets, hour).await;
        assert!(matches!(outcome, Outcome::Uncertain { .. }), "{outcome:?}");
        assert_eq!((record.busy, record.at_work, record.unknown), (1, 1, 1));
        assert!(alive(&mut leaked).await);

        let (outcome, record) = run(&mut ours, &sockets, Duration::ZERO).await;
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(record.killed, [sockets[0].0]);
        assert!(!alive(&mut leaked).await);
        assert!(alive(&mut other).await && alive(&mut ours).await);
    }

    #[tokio::test]
    async fn a_redis_that_is_gone_was_not_begun() {
        let server = Server::start(&[]);
        let mut ours = server.connect().await;
        drop(server);
        let (outcome, _) = run(&mut ours, &[], Duration::ZERO).await;
        assert!(matches!(outcome, Outcome::NotBegun { .. }), "{outcome:?}");
    }
}
