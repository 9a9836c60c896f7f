//! Samples of the daemon's trace, over its control socket.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, bail};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::source::Told;
use crate::{
    daemon::{Answer, Request, ask, status::Status},
    policy::{decision::Subject, level::Level},
    report::{Listing, Report},
    top::{Origin, Sample},
};

pub(super) struct Attached {
    socket: PathBuf,
    began: Instant,
    answers: UnboundedReceiver<Result<Sample>>,
    answer: UnboundedSender<Result<Sample>>,
    is_asking: bool,
    /// To be asked when the answer to the last one is there: a slow daemon is not asked twice.
    wanted: Option<Listing>,
}

impl Attached {
    /// # Errors
    ///
    /// No daemon answers there.
    pub(super) async fn to(socket: &Path) -> Result<Self> {
        status(socket).await?;
        let (answer, answers) = mpsc::unbounded_channel();
        Ok(Self {
            socket: socket.to_owned(),
            began: Instant::now(),
            answers,
            answer,
            is_asking: false,
            wanted: None,
        })
    }

    pub(super) fn look(&mut self, listing: Listing) {
        if self.is_asking {
            self.wanted = Some(listing);
            return;
        }
        self.is_asking = true;
        let (socket, began, answer) = (self.socket.clone(), self.began, self.answer.clone());
        // On its own: keys do not wait for the daemon.
        tokio::spawn(async move {
            let _ = answer.send(sample(&socket, listing, began).await);
        });
    }

    pub(super) async fn next(&mut self) -> Told {
        let Some(answer) = self.answers.recv().await else {
            // Never: we have a sender ourselves.
            return Told::Nothing;
        };
        self.is_asking = false;
        if let Some(listing) = self.wanted.take() {
            self.look(listing);
        }
        match answer {
            Ok(sample) => Told::Sample(Box::new(sample)),
            Err(error) => Told::Failure(error),
        }
    }
}

async fn sample(socket: &Path, listing: Listing, began: Instant) -> Result<Sample> {
    let report = report(socket, listing).await?;
    let status = status(socket).await?;
    let ports = status.ports.iter();
    let ports: Vec<String> = ports.map(|it| Subject::Port(it.port).to_string()).collect();
    let of_ports = status
        .subjects
        .iter()
        .filter(|it| ports.contains(&it.subject));
    Ok(Sample {
        at: began.elapsed(),
        origin: Origin::Daemon { pid: status.pid },
        report,
        listing,
        count: of_ports.map(|it| it.count).sum(),
        level: status
            .subjects
            .iter()
            .map(|it| it.level)
            .max()
            .unwrap_or(Level::Healthy),
        manual: status.manual.map(|manual| manual.cause),
    })
}

async fn status(socket: &Path) -> Result<Box<Status>> {
    match ask(socket, Request::Status).await? {
        Answer::Status(status) => Ok(status),
        other => bail!("{}", unexpected(&other)),
    }
}

async fn report(socket: &Path, listing: Listing) -> Result<Report> {
    match ask(socket, Request::Report { listing }).await? {
        Answer::Report(report) => Ok(*report),
        other => bail!("{}", unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> String {
    match answer {
        Answer::Error { message } => format!("the daemon refused: {message}"),
        other => format!("failed to understand the daemon's answer {other:?}; is it this version?"),
    }
}
