//! Services for an instance to serve, none of which has ever run.

use std::error::Error;

use serde_json::{Value, json};

use crate::client::Connection;
use crate::ready;

/// The image of the sample.
const IMAGE: &str = "localhost:5000/helloworld-go:160e4dc8";
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

/// Waits until all of these are ready.
pub(crate) async fn settle(client: &mut Connection, names: &[String]) -> Result<(), Box<dyn Error>> {
    ready::all(client, names.iter().map(|name| format!("{SERVICES}/{name}"))).await
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
