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
const PAUSE_MAX: Duration = Duration::from_secs(5);

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
    /// How many there were.
    pushed: u64,
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
        let queue = Arc::new(Queue::new(config.buffer));
        Ok(Self {
            task: tokio::spawn(write(Arc::clone(&queue), stream, config.max_len)),
            queue,
        })
    }

    /// Never waits: where there is no room the oldest goes.
    pub(super) fn push(&self, digest: Digest) {
        self.queue.push(digest);
        self.queue.filled.notify_one();
    }

    pub(super) fn status(&self) -> StreamStatus {
        self.queue.status()
    }
}

impl Queue {
    fn new(buffer: u32) -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            buffer: usize::try_from(buffer).unwrap_or(usize::MAX).max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of it is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, mut digest: Digest) {
        let mut state = self.lock();
        while state.waiting.len() >= self.buffer {
            state.waiting.pop_front();
            state.status.dropped += 1;
        }
        digest.number = Some(state.pushed);
        state.pushed += 1;
        state.waiting.push_back(digest);
    }

    /// The oldest: all that was dropped until now was before it.
    fn take(&self) -> Option<Digest> {
        let mut state = self.lock();
        let mut digest = state.waiting.pop_front()?;
        digest.dropped = state.status.dropped;
        Some(digest)
    }

    fn status(&self) -> StreamStatus {
        let state = self.lock();
        StreamStatus {
            waiting: state.waiting.len() as u64,
            ..state.status.clone()
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::Digest;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push,
        Begin,
        Succeed,
        Fail,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Push),
            2 => Just(Step::Begin),
            1 => Just(Step::Succeed),
            1 => Just(Step::Fail),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whoever reads the stream sees by the numbers what is missing, and by `dropped` that
        /// the daemon knows of it.
        #[test]
        fn what_is_missing_in_the_stream_is_what_was_dropped(buffer in 1..5_u32, steps in steps()) {
            let queue = Queue::new(buffer);
            let mut in_flight: Option<Digest> = None;
            let mut stream: Vec<Digest> = Vec::new();
            for step in steps {
                match step {
                    Step::Push => queue.push(Digest::default()),
                    Step::Begin if in_flight.is_none() => in_flight = queue.take(),
                    Step::Begin => {}
                    Step::Succeed => if let Some(digest) = in_flight.take() {
                        stream.push(digest);
                        queue.written();
                    },
                    Step::Fail => if let Some(digest) = in_flight.take() {
                        queue.put_back(digest, "away".to_owned());
                    },
                }
                prop_assert!(queue.status().waiting <= u64::from(buffer));
            }
            for (index, digest) in (0..).zip(&stream) {
                prop_assert_eq!(digest.number, Some(index + digest.dropped));
            }
            let status = queue.status();
            prop_assert_eq!(status.written, stream.len() as u64);
            let pushed = queue.lock().pushed;
            let told = status.written + status.dropped + status.waiting;
            prop_assert_eq!(told + u64::from(in_flight.is_some()), pushed);
        }
    }
}
