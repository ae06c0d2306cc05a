//! Services for an instance to serve, none of which has ever run.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Connection;

/// The image of the sample.
const IMAGE: &str = "localhost:5000/helloworld-go:160e4dc8";
/// How long the next of them may take to become ready.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICES: &str = "/apis/serving.knative.dev/v1/namespaces/default/services";

/// Creates `count` Services without instances, named `<prefix>-<number>`, and waits until all are ready.
pub(crate) async fn create(client: &mut Connection, prefix: &str, count: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let names = post(client, prefix, count).await?;
    settle(client, &names).await?;
    Ok(names)
}

/// Creates them, and does not wait.
pub(crate) async fn post(client: &mut Connection, prefix: &str, count: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let path = "/api/v1/namespaces/knative-serving/configmaps/config-autoscaler";
    client.merge(path, &json!({"data": {"allow-zero-initial-scale": "true"}})).await?;
    let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
    for name in &names {
        client.create(SERVICES, &service(name)).await?;
    }
    Ok(names)
}

/// Waits until all of these are ready; asks for one after the other, so that asking costs the same however many there are.
pub(crate) async fn settle(client: &mut Connection, names: &[String]) -> Result<(), Box<dyn Error>> {
    let mut progress = Instant::now();
    for name in names {
        let path = format!("{SERVICES}/{name}");
        while !is_ready(&serde_json::from_slice(&client.get(&path).await?)?) {
            if progress.elapsed() > PATIENCE {
                return Err(format!("service {name} does not become ready").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        progress = Instant::now();
    }
    Ok(())
}

fn is_ready(service: &Value) -> bool {
    let conditions = service["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": {
            "metadata": {"annotations": {"autoscaling.knative.dev/initial-scale": "0"}},
            "spec": {"containers": [{"image": IMAGE}]},
        }},
    })
}
