//! A stream: entries appended to and read from one key, wherever a cluster has that key.
//!
//! One key is in one slot, and one slot on one node: following a redirection is all that a
//! cluster asks of us, so the connection stays the one we know, with its name, TLS and login.

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, cmd};

use super::connection::{Connection, ConnectionError};
use super::endpoint::{Address, Endpoint};

/// A slot that moves while it is asked for is asked for again; a cluster that sends us round in
/// circles is broken.
const REDIRECTIONS_MAX: usize = 5;

/// ID, then fields and values in turn.
type RawEntry = (String, Vec<String>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    pub id: String,
    pub fields: Vec<(String, String)>,
}

pub struct Stream {
    endpoint: Endpoint,
    key: String,
    /// The node that a cluster last sent us to.
    home: Option<Address>,
    connection: Option<Connection>,
}

impl Stream {
    /// Connects with the first query.
    pub fn new(endpoint: Endpoint, key: impl Into<String>) -> Self {
        Self {
            endpoint,
            key: key.into(),
            home: None,
            connection: None,
        }
    }

    /// Appends an entry, and lets Redis drop the oldest beyond `max_len` when it suits it.
    ///
    /// # Errors
    ///
    /// It may or may not have been appended.
    pub async fn append(
        &mut self,
        max_len: u32,
        fields: &[(&str, &str)],
    ) -> Result<(), ConnectionError> {
        let mut append = cmd("XADD");
        append.arg(&self.key).arg("MAXLEN").arg("~").arg(max_len);
        append.arg("*");
        for (name, value) in fields {
            append.arg(name).arg(value);
        }
        self.query::<String>(&append).await.map(|_| ())
    }

    /// Entries older than `before` (exclusive; None for the newest), the newest first.
    ///
    /// # Errors
    ///
    /// Redis cannot be reached, or the key is no stream.
    pub async fn older(
        &mut self,
        before: Option<&str>,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ConnectionError> {
        let newest = before.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
        let mut range = cmd("XREVRANGE");
        range.arg(&self.key).arg(newest).arg("-");
        range.arg("COUNT").arg(count);
        self.entries(&range).await
    }

    /// Entries newer than `after`, the oldest first.
    ///
    /// # Errors
    ///
    /// As [`Stream::older`].
    pub async fn newer(
        &mut self,
        after: &str,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ConnectionError> {
        let mut range = cmd("XRANGE");
        range.arg(&self.key).arg(format!("({after}")).arg("+");
        range.arg("COUNT").arg(count);
        self.entries(&range).await
    }

    async fn entries(&mut self, range: &Cmd) -> Result<Vec<StreamEntry>, ConnectionError> {
        let raw: Vec<RawEntry> = self.query(range).await?;
        Ok(raw.into_iter().map(entry).collect())
    }

    async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, ConnectionError> {
        let mut redirections = 0;
        loop {
            let error = match self.ask(command).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !error.is_reply() {
                self.connection = None;
                // That node may be gone for good: the next query asks the configured one again.
                self.home = None;
            }
            match &error {
                ConnectionError::Command(reply) if redirections < REDIRECTIONS_MAX => {
                    let Some(home) = self.moved(reply) else {
                        return Err(error);
                    };
                    redirections += 1;
                    self.home = Some(home);
                    self.connection = None;
                }
                _ => return Err(error),
            }
        }
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, ConnectionError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let endpoint = self.endpoint.at(self.home.as_ref());
                self.connection.insert(Connection::open(&endpoint).await?)
            }
        };
        connection.query(command).await
    }

    /// Where a cluster says that the key's slot is. A slot that is being moved (ASK) is where it
    /// was for everyone else: then the query fails and is tried again later.
    fn moved(&self, reply: &RedisError) -> Option<Address> {
        if reply.kind() != ErrorKind::Server(ServerErrorKind::Moved) {
            return None;
        }
        let (node, _) = reply.redirect_node()?;
        self.endpoint.node(node)
    }
}

fn entry((id, flat): RawEntry) -> StreamEntry {
    let mut flat = flat.into_iter();
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        fields.push((name, value));
    }
    StreamEntry { id, fields }
}

impl StreamEntry {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }
}
