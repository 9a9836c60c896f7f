//! The stream writer takes digests to a Redis Stream; while that Redis is away it keeps a few, and
//! counts the ones it drops. Nothing waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::config;
use crate::metrics::Digest;
use crate::redis::endpoint::Endpoint;
use crate::redis::stream::Stream;

/// For an answer: a Redis far away may take its time, nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries; doubled up to the most.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Ends with its value; what waits then is not written.
pub(super) struct StreamWriter {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

/// What became of the digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    pub written: u64,
    /// The oldest ones, when more waited than [export.stream] buffer.
    pub dropped: u64,
    pub waiting: u64,
    /// Why the last try failed; null when it did not.
    pub error: Option<String>,
}

struct Queue {
    state: Mutex<State>,
    filled: Notify,
    buffer: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Digest>,
    status: StreamStatus,
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StreamWriter {
    /// # Errors
    ///
    /// The address is none.
    pub(super) fn start(config: &config::Stream) -> Result<Self> {
        let endpoint = Endpoint::new(&config::Redis {
            url: config.url.clone(),
            username: config.username.clone(),
            password_file: config.password_file.clone(),
            timeout: TIMEOUT,
            ..config::Redis::default()
        })?;
        let stream = Stream::new(endpoint, &*config.key);
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            filled: Notify::new(),
            buffer: usize::try_from(config.buffer).unwrap_or(usize::MAX).max(1),
        });
        Ok(Self {
            task: tokio::spawn(write(Arc::clone(&queue), stream, config.max_len)),
            queue,
        })
    }

    /// Never waits: where there is no room the oldest goes.
    pub(super) fn push(&self, mut digest: Digest) {
        let mut state = self.queue.lock();
        while state.waiting.len() >= self.queue.buffer {
            state.waiting.pop_front();
            state.status.dropped += 1;
        }
        digest.dropped = state.status.dropped;
        state.waiting.push_back(digest);
        drop(state);
        self.queue.filled.notify_one();
    }

    pub(super) fn status(&self) -> StreamStatus {
        let state = self.queue.lock();
        StreamStatus {
            waiting: state.waiting.len() as u64,
            ..state.status.clone()
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of it is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Digest> {
        self.lock().waiting.pop_front()
    }

    fn written(&self) {
        let mut state = self.lock();
        state.status.written += 1;
        state.status.error = None;
    }

    /// Back to the front, unless newer ones have filled the room meanwhile.
    fn put_back(&self, digest: Digest, error: String) {
        let mut state = self.lock();
        state.status.error = Some(error);
        if state.waiting.len() < self.buffer {
            state.waiting.push_front(digest);
        } else {
            state.status.dropped += 1;
        }
    }
}

async fn write(queue: Arc<Queue>, mut stream: Stream, max_len: u32) {
    let mut pause = PAUSE_FIRST;
    loop {
        let Some(digest) = queue.take() else {
            queue.filled.notified().await;
            continue;
        };
        let report = serde_json::to_string(&digest).unwrap_or_default();
        // Beside the report what a consumer chooses by, without reading it.
        let fields = [
            ("schema", digest.schema.as_str()),
            ("host", &digest.host),
            ("boot_id", &digest.boot_id),
            ("generated_at", &digest.generated_at),
            ("report", &report),
        ];
        match stream.append(max_len, &fields).await {
            Ok(()) => {
                queue.written();
                pause = PAUSE_FIRST;
            }
            Err(error) => {
                queue.put_back(digest, error.to_string());
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}
