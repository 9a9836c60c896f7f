//! An endpoint says how to reach Redis: over what, as whom, secured how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::SecretSource;
use crate::config;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretSource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentinels {
    pub(super) addresses: Vec<Address>,
    pub(super) master: String,
    pub(super) login: Login,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) address: Address,
    pub(super) db: i64,
    pub(super) login: Login,
    pub(super) tls: Option<TlsFiles>,
    pub(super) sentinels: Option<Sentinels>,
    pub(super) timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("failed to understand redis address {text}: {cause}")]
pub struct EndpointError {
    text: String,
    cause: &'static str,
}

impl Endpoint {
    pub fn new(from: &config::Redis) -> Result<Self, EndpointError> {
        let (address, db, secured) = parse_url(&from.url)?;
        let password = match (&from.password_file, &from.password_credential) {
            (Some(file), _) => Some(SecretSource::File(file.clone())),
            (None, Some(name)) => Some(SecretSource::Credential(name.clone())),
            (None, None) => None,
        };
        let sentinels = match &from.sentinel_master {
            Some(master) if !from.sentinels.is_empty() => Some(Sentinels {
                addresses: from
                    .sentinels
                    .iter()
                    .map(|text| parse_host(text, 26379))
                    .collect::<Result<_, _>>()?,
                master: master.clone(),
                login: Login {
                    username: from.sentinel_username.clone(),
                    password: from.sentinel_password_file.clone().map(SecretSource::File),
                },
            }),
            _ => None,
        };
        Ok(Self {
            address,
            db,
            login: Login {
                username: from.username.clone(),
                password,
            },
            tls: secured.then(|| TlsFiles {
                ca: from.ca_file.clone(),
                cert: from.cert_file.clone(),
                key: from.key_file.clone(),
            }),
            sentinels,
            timeout: from.timeout,
        })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The same server asked at another node of its cluster.
    pub(super) fn at(&self, node: Option<&Address>) -> Self {
        match node {
            Some(address) => Self {
                address: address.clone(),
                sentinels: None,
                ..self.clone()
            },
            None => self.clone(),
        }
    }

    /// A node as a cluster names it: `HOST:PORT` (IPv6 without brackets), `:PORT` on the host
    /// that was asked.
    pub(super) fn node(&self, text: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match (host, &self.address) {
            ("", Address::Tcp { host, .. }) => host.clone(),
            ("", Address::Unix(_)) => return None,
            (host, _) => host.to_owned(),
        };
        let port = port.parse().ok()?;
        Some(Address::Tcp { host, port })
    }
}

fn parse_url(url: &str) -> Result<(Address, i64, bool), EndpointError> {
    let wrong = |cause| EndpointError {
        text: url.to_owned(),
        cause,
    };
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| wrong("it has no scheme"))?;
    match scheme {
        "unix" | "redis+unix" => {
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            let db = query.split('&').find_map(|pair| pair.strip_prefix("db="));
            let db = db
                .unwrap_or("0")
                .parse()
                .map_err(|_| wrong("the database is no number"))?;
            Ok((Address::Unix(path.into()), db, false))
        }
        "redis" | "rediss" => {
            let (host, db) = rest.split_once('/').unwrap_or((rest, ""));
            let db = if db.is_empty() { "0" } else { db };
            let db = db.parse().map_err(|_| wrong("the database is no number"))?;
            Ok((parse_host(host, 6379)?, db, scheme == "rediss"))
        }
        _ => Err(wrong("the scheme is none of redis, rediss, unix")),
    }
}

fn parse_host(text: &str, default_port: u16) -> Result<Address, EndpointError> {
    let wrong = |cause| EndpointError {
        text: text.to_owned(),
        cause,
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, tail) = rest.split_once(']').ok_or_else(|| wrong("no ] after ["))?;
            (host, tail.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port
            .parse()
            .map_err(|_| wrong("the port is no number from 1 to 65535"))?,
        None => default_port,
    };
    if host.is_empty() {
        return Err(wrong("it has no host"));
    }
    Ok(Address::Tcp {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Option<(String, i64, bool)> {
        let (address, db, secured) = parse_url(url).ok()?;
        Some((address.to_string(), db, secured))
    }

    #[test]
    fn a_cluster_names_its_nodes_with_and_without_host() {
        let endpoint = Endpoint::new(&config::Redis {
            url: "redis://10.0.0.1:6380".to_owned(),
            ..config::Redis::default()
        });
        let endpoint = endpoint.expect("an endpoint");
        for (text, expected) in [
            ("10.0.0.2:6381", Some("10.0.0.2:6381")),
            (":6381", Some("10.0.0.1:6381")),
            ("fd00::2:6381", Some("[fd00::2]:6381")),
            ("node.example:6381", Some("node.example:6381")),
            ("node.example", None),
        ] {
            let node = endpoint.node(text).map(|node| node.to_string());
            assert_eq!(node.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn urls_name_host_port_database_and_tls() {
        let of = |address: &str, db, secured| Some((address.to_owned(), db, secured));
        assert_eq!(
            parse("redis://10.0.0.1:6380/2"),
            of("10.0.0.1:6380", 2, false)
        );
        assert_eq!(
            parse("rediss://cache.example"),
            of("cache.example:6379", 0, true)
        );
        assert_eq!(parse("redis://[::1]:6379/"), of("[::1]:6379", 0, false));
        assert_eq!(
            parse("unix:///run/redis.sock?db=3"),
            of("/run/redis.sock", 3, false)
        );
        for url in [
            "redis://",
            "redis://h:70000",
            "http://h",
            "h:1",
            "redis://h/x",
        ] {
            assert_eq!(parse(url), None, "{url}");
        }
    }
}
