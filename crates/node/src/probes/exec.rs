//! Whether a program inside the container ends well.

use std::time::Duration;

use super::ProbeTarget;

/// Most bytes of its output that are told.
const TOLD: usize = 10 * 1024;

/// Asks once.
pub(super) async fn ask(target: &ProbeTarget, command: &[String], timeout: Duration) -> Result<(), String> {
    let monitor = target.monitor.borrow().clone();
    let run = crate::exec::run(&monitor, target.container.clone(), command.to_vec(), timeout, TOLD).await;
    match run {
        Err(error) => Err(error.to_string()),
        Ok(None) => Err(format!("command timed out: {:?} timed out after {}s", command.join(" "), timeout.as_secs())),
        Ok(Some((exit, _))) if exit.code == 0 => Ok(()),
        Ok(Some((exit, output))) if output.is_empty() => Err(format!("command ended with exit code {}", exit.code)),
        Ok(Some((_, output))) => Err(output),
    }
}
