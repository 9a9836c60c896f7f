//! The control socket: what the verbs ask the daemon, a JSON line each way, for root and one group.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::group;
use super::status::Status;
use crate::report::{Listing, Report};

/// A request is a word.
const MAX_REQUEST_BYTES: u64 = 4096;
/// A report of 50,000 sockets is 17 MB.
const MAX_ANSWER_BYTES: u64 = 256 << 20;
const MAX_CLIENTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request", deny_unknown_fields)]
pub enum Request {
    Status,
    Ack,
    Report { listing: Listing },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Answer {
    Status(Box<Status>),
    Acked { was_manual: bool },
    Report(Box<Report>),
    Error { message: String },
}

/// A request and where its answer goes.
pub(super) type Asked = (Request, oneshot::Sender<Answer>);

/// The socket's file goes with it.
pub(super) struct Control {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

impl Control {
    /// Listens; the second value says what is not as configured.
    pub(super) fn open(
        path: &Path,
        group: &str,
        asked: mpsc::Sender<Asked>,
    ) -> Result<(Self, Option<String>)> {
        let gid = (!group.is_empty()).then(|| group::gid_of(group)).flatten();
        let listener =
            listen(path, gid).with_context(|| format!("failed to listen on {}", path.display()))?;
        let warning = (gid.is_none() && !group.is_empty()).then(|| {
            format!(
                "group {group} does not exist: only root may use {}; create it or set [daemon] \
                 group",
                path.display()
            )
        });
        let task = tokio::spawn(serve(listener, gid, asked));
        let path = path.to_owned();
        Ok((Self { path, task }, warning))
    }
}

/// Bound beside its place and moved there when its rights are set: nobody finds it open to all.
fn listen(path: &Path, gid: Option<u32>) -> Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another connleak daemon listens there; stop it first");
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if let Ok(found) = fs::symlink_metadata(path)
        && !found.file_type().is_socket()
    {
        bail!("there is another file; remove it or set [daemon] socket");
    }
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    let placed = || -> io::Result<()> {
        chown(&beside, Some(0), Some(gid.unwrap_or(0)))?;
        let mode = if gid.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(&beside, Permissions::from_mode(mode))?;
        fs::rename(&beside, path)
    };
    placed().inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })?;
    Ok(listener)
}

async fn serve(listener: UnixListener, gid: Option<u32>, asked: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: the next one may have more luck.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let asked = asked.clone();
        tokio::spawn(async move {
            // Whoever says nothing loses the place.
            let _ = timeout(PATIENCE, attend(stream, gid, asked)).await;
            drop(place);
        });
    }
}

async fn attend(mut stream: UnixStream, gid: Option<u32>, asked: mpsc::Sender<Asked>) {
    let allowed = may(&stream, gid);
    let mut line = String::new();
    let (reader, _) = stream.split();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST_BYTES));
    // Read before it is refused: closing with the request unread would reset the answer away.
    let answer = match reader.read_line(&mut line).await {
        Ok(0) | Err(_) => return,
        Ok(_) if !allowed => refusal("only root and the configured group may ask"),
        Ok(_) => put(&line, asked).await,
    };
    let mut text = serde_json::to_vec(&answer).unwrap_or_default();
    text.push(b'\n');
    let _ = stream.write_all(&text).await;
}

async fn put(line: &str, asked: mpsc::Sender<Asked>) -> Answer {
    let request = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(error) => return refusal(&format!("failed to understand the request: {error}")),
    };
    let (to, answer) = oneshot::channel();
    if asked.send((request, to)).await.is_err() {
        return refusal("the daemon is stopping");
    }
    answer
        .await
        .unwrap_or_else(|_| refusal("the daemon is stopping"))
}

fn refusal(message: &str) -> Answer {
    Answer::Error {
        message: message.to_owned(),
    }
}

/// The file's rights say the same; this holds where someone changed them.
fn may(stream: &UnixStream, gid: Option<u32>) -> bool {
    let Ok(peer) = stream.peer_cred() else {
        return false;
    };
    peer.uid() == 0
        || gid.is_some_and(|gid| {
            let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
            peer.gid() == gid || pid.is_some_and(|pid| group::is_member(pid, gid))
        })
}

/// Asks the daemon that listens on `path`.
///
/// # Errors
///
/// Nobody listens there, or not to us.
pub async fn ask(path: &Path, request: Request) -> Result<Answer> {
    let failed = || {
        format!(
            "failed to ask the daemon at {}; is it running, and are you root or in its group?",
            path.display()
        )
    };
    let asking = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut text = String::new();
        let mut reader = BufReader::new(stream.take(MAX_ANSWER_BYTES));
        reader.read_line(&mut text).await?;
        Ok::<Answer, anyhow::Error>(serde_json::from_str(&text)?)
    };
    timeout(PATIENCE, asking)
        .await
        .map_err(anyhow::Error::from)
        .flatten()
        .with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Whose;

    #[test]
    fn a_report_is_asked_for_by_its_listing() {
        let listing = Listing {
            whose: Whose::Opener(Some(7)),
            sockets_max: 10,
        };
        let request = Request::Report { listing };
        let text = r#"{"request":"report","listing":{"whose":{"opener":7},"sockets_max":10}}"#;
        assert_eq!(serde_json::to_string(&request).ok().as_deref(), Some(text));
        assert_eq!(serde_json::from_str::<Request>(text).ok(), Some(request));
    }
}
