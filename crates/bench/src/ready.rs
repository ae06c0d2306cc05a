//! Waiting until objects of an instance are ready.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Connection;

/// How long the next of them may take to become ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the objects at all of these paths are ready; asks for one after the other, so that asking costs the same
/// however many there are.
pub(crate) async fn all(
    client: &mut Connection,
    paths: impl IntoIterator<Item = String>,
) -> Result<(), Box<dyn Error>> {
    let mut progress = Instant::now();
    for path in paths {
        while !is_ready(&serde_json::from_slice(&client.get(&path).await?)?) {
            if progress.elapsed() > PATIENCE {
                return Err(format!("{path} does not become ready").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        progress = Instant::now();
    }
    Ok(())
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
