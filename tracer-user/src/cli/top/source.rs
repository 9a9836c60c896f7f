//! Where samples come from: the daemon that runs here, or a trace of our own.

use std::io;

use anyhow::Result;

use super::{attached::Attached, traced::Traced};
use crate::{
    cli::{args::TopArgs, daemon::config_file},
    config::Config,
    report::Listing,
    top::Sample,
};

pub(super) enum Source {
    Daemon(Attached),
    Trace(Box<Traced>),
}

/// What a source has to say.
pub(super) enum Told {
    /// Something happened that the next sample will tell.
    Nothing,
    Sample(Box<Sample>),
    /// No sample this time.
    Failure(anyhow::Error),
}

impl Source {
    /// # Errors
    ///
    /// The daemon that was named does not answer, or tracing cannot run here.
    pub(super) async fn choose(args: &TopArgs) -> Result<Self> {
        let config = match config_file(args.control.config.clone()) {
            Some(file) => Config::read(&file)?,
            None => Config::default(),
        };
        let named = args.control.socket.as_ref();
        if args.ports.is_empty() {
            let socket = named.unwrap_or(&config.daemon.socket);
            match Attached::to(socket).await {
                Ok(attached) => return Ok(Self::Daemon(attached)),
                Err(error) if named.is_some() || !says_nobody_listens(&error) => return Err(error),
                Err(_) => {}
            }
        }
        let traced = Traced::start(args, &config)?;
        traced.announce();
        Ok(Self::Trace(Box::new(traced)))
    }

    /// Asks for a sample; [`Source::next`] tells it.
    pub(super) fn look(&mut self, listing: Listing) {
        match self {
            Self::Daemon(attached) => attached.look(listing),
            Self::Trace(traced) => traced.look(listing),
        }
    }

    /// # Errors
    ///
    /// The kernel refused a look-up or a walk: there is nothing more to come.
    pub(super) async fn next(&mut self) -> Result<Told> {
        match self {
            Self::Daemon(attached) => Ok(attached.next().await),
            Self::Trace(traced) => traced.next().await,
        }
    }
}

fn says_nobody_listens(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            )
        })
    })
}
