//! A connection to Redis that is ours and known to be: named connleak, its own addresses kept.
//!
//! The socket is opened here and not by the `redis` crate, because only so is its local address
//! known: our own connections must never be counted.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, ProtocolVersion, RedisConnectionInfo,
    RedisError, cmd,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;

use super::endpoint::{Address, Endpoint, Login, TlsFiles};
use super::secret::SecretError;
use super::{sentinel, tls};

/// What CLIENT LIST calls us.
pub const CLIENT_NAME: &str = "connleak";

#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("failed to connect to redis at {address}: {source}")]
    Connect { address: Address, source: io::Error },
    #[error("failed to connect to redis at {address}: no answer within {timeout:?}")]
    Unreachable { address: Address, timeout: Duration },
    #[error("failed to greet redis at {address}: no answer within {timeout:?}")]
    Silent { address: Address, timeout: Duration },
    #[error("redis gave no answer within {timeout:?}")]
    NoAnswer { timeout: Duration },
    #[error("redis at {address}: {source}")]
    Setup {
        address: Address,
        source: RedisError,
    },
    #[error("{0}")]
    Command(#[from] RedisError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("failed to find master {master}: {cause}")]
    Sentinel { master: String, cause: String },
}

pub struct Connection {
    inner: MultiplexedConnection,
    driver: JoinHandle<()>,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    timeout: Duration,
}

/// Without its driver the socket would stay open behind a dropped handle.
impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub async fn open(endpoint: &Endpoint) -> Result<Self, ConnectionError> {
        let mut address = endpoint.address.clone();
        if let Some(sentinels) = &endpoint.sentinels {
            address = sentinel::master(sentinels, endpoint).await?;
        }
        let mut opened = Self::open_at(
            &address,
            endpoint.tls.as_ref(),
            &endpoint.login,
            endpoint.db,
            endpoint.timeout,
        )
        .await?;
        // A name helps whoever reads CLIENT LIST; an ACL that forbids it does no harm.
        let mut name = cmd("CLIENT");
        name.arg("SETNAME").arg(CLIENT_NAME);
        match opened.query::<()>(&name).await {
            Err(ConnectionError::NoAnswer { timeout }) => {
                Err(ConnectionError::Silent { address, timeout })
            }
            Err(ConnectionError::Command(source)) if source.code() != Some("NOPERM") => {
                Err(ConnectionError::Setup { address, source })
            }
            _ => Ok(opened),
        }
    }

    pub(super) async fn open_at(
        address: &Address,
        secured: Option<&TlsFiles>,
        login: &Login,
        db: i64,
        wait: Duration,
    ) -> Result<Self, ConnectionError> {
        let failed = |source| ConnectionError::Connect {
            address: address.clone(),
            source,
        };
        let late = |_| ConnectionError::Unreachable {
            address: address.clone(),
            timeout: wait,
        };
        match address {
            Address::Unix(path) => {
                let stream = timeout(wait, UnixStream::connect(path))
                    .await
                    .map_err(late)?;
                let stream = stream.map_err(failed)?;
                Self::greet(stream, (None, None), address, login, db, wait).await
            }
            Address::Tcp { host, port } => {
                let connecting = TcpStream::connect((host.as_str(), *port));
                let stream = timeout(wait, connecting)
                    .await
                    .map_err(late)?
                    .map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                let ends = (stream.local_addr().ok(), stream.peer_addr().ok());
                let Some(files) = secured else {
                    return Self::greet(stream, ends, address, login, db, wait).await;
                };
                let name = ServerName::try_from(host.clone())
                    .map_err(|error| failed(io::Error::other(error)))?;
                let handshake = tls::connector(files)?.connect(name, stream);
                let silent = |_| ConnectionError::Silent {
                    address: address.clone(),
                    timeout: wait,
                };
                let stream = timeout(wait, handshake)
                    .await
                    .map_err(silent)?
                    .map_err(failed)?;
                Self::greet(stream, ends, address, login, db, wait).await
            }
        }
    }

    async fn greet<S>(
        stream: S,
        (local, remote): (Option<SocketAddr>, Option<SocketAddr>),
        address: &Address,
        login: &Login,
        db: i64,
        wait: Duration,
    ) -> Result<Self, ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The crate would overlook the first answer, and "max number of clients" is in it.
        let mut settings = RedisConnectionInfo::default()
            .set_db(db)
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        if let Some(username) = &login.username {
            settings = settings.set_username(username);
        }
        if let Some(source) = &login.password {
            settings = settings.set_password(source.read()?.expose());
        }
        let greeting =
            MultiplexedConnection::new_with_config(&settings, stream, AsyncConnectionConfig::new());
        let (mut inner, driver) = timeout(wait, greeting)
            .await
            .map_err(|_| ConnectionError::Silent {
                address: address.clone(),
                timeout: wait,
            })?
            .map_err(|source| ConnectionError::Setup {
                address: address.clone(),
                source,
            })?;
        // The crate's own timeout is shorter than ours may be; ours is the one that is told.
        inner.set_response_timeout(wait.saturating_mul(2));
        Ok(Self {
            inner,
            driver: tokio::spawn(driver),
            local,
            remote,
            timeout: wait,
        })
    }

    pub async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, ConnectionError> {
        match timeout(self.timeout, command.query_async(&mut self.inner)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ConnectionError::NoAnswer {
                timeout: self.timeout,
            }),
        }
    }

    /// Our end and Redis' end; None over a unix socket.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.local?, self.remote?))
    }
}

impl ConnectionError {
    /// Whether the connection is still good: Redis answered, it only did not like the command.
    pub fn is_reply(&self) -> bool {
        match self {
            Self::Command(error) => !error.is_io_error() && !error.is_connection_dropped(),
            _ => false,
        }
    }

    /// The error Redis answered with.
    pub fn reply(&self) -> Option<&RedisError> {
        match self {
            Self::Command(error) | Self::Setup { source: error, .. } => matches!(
                error.kind(),
                ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed
            )
            .then_some(error),
            _ => None,
        }
    }
}
