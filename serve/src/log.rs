//! Logging set-up: one line an event on standard error, as logfmt or as JSON.
//! It must not know who logs what.

use std::io;

use clap::ValueEnum;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

/// The least grave event that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// What an operator must act upon.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happens seldom: starts, stops, reloads.
    Info,
    /// What helps to find a fault.
    Debug,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `ts=… level=… target=… message=… key=value`
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
#[error("logging was set up twice in this process")]
pub struct LogError(#[from] tracing_subscriber::util::TryInitError);

/// Starts logging for the whole process. To be called once, before anything is logged.
pub fn start(level: Level, format: Format) -> Result<(), LogError> {
    Ok(tracing_subscriber::registry()
        .with(layer(format, io::stderr).with_filter(targets(level)))
        .try_init()?)
}

/// The libraries below us write a line per frame and per packet at debug: nobody who asks for
/// our own debug lines wants those.
fn targets(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let noisy = level.min(LevelFilter::INFO);
    // Cassandra's driver tells at info what is normal, for every connection.
    let driver = if level == LevelFilter::INFO { LevelFilter::WARN } else { noisy };
    Targets::new()
        .with_default(level)
        .with_target("scylla", driver)
        .with_targets(["h2", "hyper", "rustls", "mio"].map(|target| (target, noisy)))
}

fn layer<W>(format: Format, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        Format::Logfmt => {
            tracing_logfmt::builder().with_target(true).layer().with_writer(writer).boxed()
        }
        Format::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(writer)
            .boxed(),
    }
}

#[cfg(test)]
mod tests;
