//! What the process writes about itself.

use std::io::IsTerminal as _;

use knoll_cli::Exit;
use tracing::Level;

use crate::failure::Failure;

/// Sends events of at least this level to standard error.
pub(crate) fn start(level: &str) -> Result<(), Failure> {
    let level: Level = level.parse().map_err(|_| {
        let text = format!("--log {level}: it is one of error, warn, info, debug and trace");
        Failure::text(Exit::Usage, text)
    })?;
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}
