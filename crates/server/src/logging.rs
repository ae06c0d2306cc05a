//! What the process writes about itself.

use std::io::IsTerminal as _;

use knoll_cli::Exit;
use tracing::{Level, Subscriber};
use tracing_subscriber::{Registry, filter::Targets, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

use crate::{failure::Failure, log_file::Lines};

/// What the targets of our own crates begin with.
const OWN: &str = "knoll";

/// The level below which nothing is written; can be changed while the process runs.
#[derive(Clone)]
pub(crate) struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// The level now, as [`LogLevel::set`] takes it.
    pub(crate) fn get(&self) -> String {
        let own = |targets: Targets| targets.into_iter().find(|(target, _)| target == OWN);
        self.0.clone_current().and_then(own).map_or_else(String::new, |(_, level)| level.to_string().to_lowercase())
    }

    /// Changes the level.
    ///
    /// # Errors
    /// When there is no such level.
    pub(crate) fn set(&self, level: &str) -> Result<(), String> {
        let level = parse(level)?;
        self.0.reload(filter(level)).map_err(|e| e.to_string())
    }
}

fn parse(level: &str) -> Result<Level, String> {
    level.trim().parse().map_err(|_| format!("{level:?} is no level: error, warn, info, debug or trace"))
}

/// What is written at a level: what we say about debugging would drown in what the libraries do, which only the lowest
/// level shows.
fn filter(level: Level) -> Targets {
    let others = if level == Level::DEBUG { Level::INFO } else { level };
    Targets::new().with_default(others).with_target(OWN, level)
}

/// A subscriber that writes events of at least this level, and what changes the level.
pub(crate) fn subscriber(level: Level, to: Lines) -> (impl Subscriber + Send + Sync, LogLevel) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer().with_ansi(std::io::stderr().is_terminal());
    let lines = lines.with_writer(move || to.clone());
    (tracing_subscriber::registry().with(filter).with(lines), LogLevel(handle))
}

/// Sends events of at least this level to standard error.
pub(crate) fn start(level: &str) -> Result<LogLevel, Failure> {
    start_to(level, Lines::StandardError)
}

/// Sends events of at least this level there.
pub(crate) fn start_to(level: &str, to: Lines) -> Result<LogLevel, Failure> {
    let level = parse(level).map_err(|e| Failure::text(Exit::Usage, format!("--log: {e}")))?;
    let (subscriber, handle) = subscriber(level, to);
    subscriber.init();
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use tracing::{Level, debug_span, enabled, subscriber::with_default};

    #[test]
    fn a_level_changes_while_the_process_runs_and_a_bad_one_is_refused() {
        let (subscriber, level) = super::subscriber(Level::INFO, super::Lines::StandardError);
        with_default(subscriber, || {
            assert!(!enabled!(Level::DEBUG));
            level.set("debug\n").unwrap();
            assert_eq!(level.get(), "debug");
            assert!(enabled!(Level::DEBUG) && !debug_span!("looked at").is_disabled());
            assert!(!enabled!(target: "h2", Level::DEBUG) && enabled!(target: "h2", Level::INFO));
            assert!(level.set("loud").unwrap_err().contains("error, warn, info, debug or trace"));
            assert_eq!(level.get(), "debug");
            level.set("trace").unwrap();
            assert!(enabled!(target: "h2", Level::TRACE));
        });
    }
}
