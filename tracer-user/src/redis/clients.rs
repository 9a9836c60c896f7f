//! CLIENT LIST: Redis' own list of its clients, joined to our sockets by address and port.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::connection::{CLIENT_NAME, Connection, ConnectionError};

/// One line of CLIENT LIST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Client {
    pub id: u64,
    /// The client's end, as Redis sees it.
    pub addr: SocketAddr,
    /// Redis' end; from 6.2.
    pub laddr: Option<SocketAddr>,
    pub name: Option<String>,
    /// From 7.2.
    pub library: Option<String>,
    pub age_s: u64,
    pub idle_s: u64,
    pub command: Option<String>,
    pub user: Option<String>,
    pub flags: String,
    pub subscriptions: u64,
    /// Commands queued in a MULTI; None outside one.
    pub queued: Option<u64>,
}

impl Client {
    /// A client over a unix socket has no address that a TCP socket could be joined by: None.
    fn parse(line: &str) -> Option<Self> {
        let mut fields: HashMap<&str, &str> = HashMap::new();
        for (key, value) in line.split(' ').filter_map(|field| field.split_once('=')) {
            fields.entry(key).or_insert(value);
        }
        let number = |key: &str| fields.get(key).and_then(|value| value.parse::<u64>().ok());
        let text = |key: &str| {
            let value = fields.get(key)?;
            (!value.is_empty()).then(|| (*value).to_owned())
        };
        let address = |key: &str| fields.get(key).and_then(|value| parse_address(value));
        Some(Self {
            id: number("id")?,
            addr: address("addr")?,
            laddr: address("laddr"),
            name: text("name"),
            library: text("lib-name").map(|name| match text("lib-ver") {
                Some(version) => format!("{name} {version}"),
                None => name,
            }),
            age_s: number("age").unwrap_or(0),
            idle_s: number("idle").unwrap_or(0),
            command: text("cmd").filter(|command| command != "NULL"),
            user: text("user"),
            flags: text("flags").unwrap_or_default(),
            subscriptions: ["sub", "psub", "ssub"]
                .iter()
                .filter_map(|key| number(key))
                .fold(0, u64::saturating_add),
            queued: number("multi"),
        })
    }

    /// A replica, a subscriber, a waiting or a transacting client is idle by its nature.
    pub fn is_at_work(&self) -> bool {
        let at_work = |flag: char| "SMObxPt".contains(flag);
        self.subscriptions > 0 || self.queued.is_some() || self.flags.chars().any(at_work)
    }

    pub fn is_ours(&self) -> bool {
        self.name.as_deref() == Some(CLIENT_NAME)
    }
}

/// `[::1]:6379` as `::1:6379` too: Redis writes IPv6 both ways.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let address = SocketAddr::new(host.parse().ok()?, port.parse().ok()?);
    Some(canonical(address))
}

/// An IPv4 client of an IPv6 socket is one client, however it is written.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// All clients, found by either end.
#[derive(Clone, Debug, Default)]
pub struct ClientList {
    clients: Vec<Client>,
    by_addr: HashMap<SocketAddr, usize>,
}

impl ClientList {
    pub async fn ask(connection: &mut Connection) -> Result<Self, ConnectionError> {
        let mut question = redis::cmd("CLIENT");
        question.arg("LIST");
        let text: String = connection.query(&question).await?;
        Ok(Self::parse(&text))
    }

    pub fn parse(text: &str) -> Self {
        let clients: Vec<Client> = text.lines().filter_map(Client::parse).collect();
        let ends = clients
            .iter()
            .enumerate()
            .map(|(index, client)| (client.addr, index));
        let by_addr = ends.collect();
        Self { clients, by_addr }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter()
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The client of a socket on this host, whichever end of the connection it is.
    pub fn find(&self, local: SocketAddr, remote: SocketAddr) -> Option<&Client> {
        let (local, remote) = (canonical(local), canonical(remote));
        let end = |client: SocketAddr, server: SocketAddr| {
            let found = self.clients.get(*self.by_addr.get(&client)?)?;
            // Behind a proxy or NAT Redis' own end looks different from there; its port does not.
            let matches = found
                .laddr
                .is_none_or(|laddr| laddr == server || laddr.port() == server.port());
            matches.then_some(found)
        };
        end(local, remote).or_else(|| end(remote, local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "id=3 addr=127.0.0.1:50010 laddr=127.0.0.1:6379 fd=8 name=orders age=40 \
        idle=12 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 cmd=get user=default redir=-1 resp=2 \
        lib-name=redis-py lib-ver=5.0.1\n\
        id=4 addr=[::1]:50011 laddr=[::1]:6379 fd=9 name= age=1 idle=0 flags=P sub=2 multi=-1 \
        cmd=subscribe user=app lib-name= lib-ver=\n\
        id=5 addr=/run/redis.sock:0 laddr=/run/redis.sock:0 fd=10 name=connleak flags=U\n\
        broken line\n\n";

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_socket_finds_its_client_from_either_end() {
        let list = ClientList::parse(LIST);
        assert_eq!(list.len(), 2);
        let client = list
            .find(at("127.0.0.1:50010"), at("127.0.0.1:6379"))
            .expect("client end");
        assert_eq!((client.id, client.idle_s, client.age_s), (3, 12, 40));
        assert_eq!(client.library.as_deref(), Some("redis-py 5.0.1"));
        assert_eq!(client.command.as_deref(), Some("get"));
        assert!(!client.is_at_work());
        let server = list.find(
            at("[::ffff:127.0.0.1]:6379"),
            at("[::ffff:127.0.0.1]:50010"),
        );
        assert_eq!(server.map(|client| client.id), Some(3));
        assert_eq!(list.find(at("127.0.0.1:50010"), at("127.0.0.1:6380")), None);
        assert_eq!(list.find(at("127.0.0.1:50099"), at("127.0.0.1:6379")), None);
    }

    #[test]
    fn a_subscriber_is_at_work_however_idle() {
        let list = ClientList::parse(LIST);
        let client = list
            .find(at("[::1]:50011"), at("[::1]:6379"))
            .expect("client");
        assert!(client.is_at_work());
        assert_eq!(
            (client.name.as_deref(), client.library.as_deref()),
            (None, None)
        );
    }

    #[test]
    fn a_repeated_field_does_not_replace_the_first() {
        let list = ClientList::parse("id=1 addr=1.2.3.4:5 name=x id=2 addr=6.7.8.9:1\n");
        assert_eq!(list.iter().next().map(|client| client.id), Some(1));
    }
}
