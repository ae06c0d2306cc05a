//! Brokers and Triggers for an instance to serve, and where events are sent to.

use std::error::Error;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::client::Connection;
use crate::ready;

/// Who takes events in for brokers, as whoever sends to them names it.
pub(crate) const HOST: &str = "broker-ingress.knative-eventing.svc.cluster.local";
const BROKERS: &str = "/apis/eventing.knative.dev/v1/namespaces/default/brokers";
const TRIGGERS: &str = "/apis/eventing.knative.dev/v1/namespaces/default/triggers";

/// Creates Brokers of these names, and waits until all are ready.
pub(crate) async fn create(client: &mut Connection, names: &[String]) -> Result<(), Box<dyn Error>> {
    post(client, names).await?;
    ready::all(client, names.iter().map(|name| format!("{BROKERS}/{name}"))).await
}

/// Creates them, and does not wait.
pub(crate) async fn post(client: &mut Connection, names: &[String]) -> Result<(), Box<dyn Error>> {
    for name in names {
        let metadata = json!({"name": name});
        let broker = json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": metadata});
        client.create(BROKERS, &broker).await?;
    }
    Ok(())
}

/// The address that events for a broker are posted to.
pub(crate) fn path(broker: &str) -> String {
    format!("/default/{broker}")
}

/// Creates a Trigger of a broker for each of these subscribers, named `<broker>-<number>`, that gets every event whose type is
/// `kind`, or every one without it, and does not wait. Their names.
pub(crate) async fn post_triggers(
    client: &mut Connection,
    broker: &str,
    subscribers: &[String],
    kind: Option<&str>,
) -> Result<Vec<String>, Box<dyn Error>> {
    let names: Vec<String> = (0..subscribers.len()).map(|number| format!("{broker}-{number}")).collect();
    for (name, subscriber) in names.iter().zip(subscribers) {
        client.create(TRIGGERS, &trigger(name, broker, subscriber, kind)).await?;
    }
    Ok(names)
}

/// Waits until these Triggers are ready: then they get every event that is taken.
pub(crate) async fn settle_triggers(client: &mut Connection, names: &[String]) -> Result<(), Box<dyn Error>> {
    ready::all(client, names.iter().map(|name| format!("{TRIGGERS}/{name}"))).await
}

fn trigger(name: &str, broker: &str, subscriber: &str, kind: Option<&str>) -> Value {
    let mut spec = json!({"broker": broker, "subscriber": {"uri": subscriber}});
    if let Some(kind) = kind {
        spec["filter"] = json!({"attributes": {"type": kind}});
    }
    json!({
        "apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "metadata": {"name": name}, "spec": spec,
    })
}

/// The socket that takes events in for brokers, behind their Service's address.
pub(crate) async fn ingress(client: &mut Connection) -> Result<SocketAddr, Box<dyn Error>> {
    let path = "/api/v1/namespaces/knative-eventing/endpoints/broker-ingress";
    let endpoints: Value = serde_json::from_slice(&client.get(path).await?)?;
    let subset = &endpoints["subsets"][0];
    let ports = subset["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let port = ports.iter().find(|port| port["name"] == "http").and_then(|port| port["port"].as_u64());
    let address = subset["addresses"][0]["ip"].as_str().unwrap_or_default().parse()?;
    Ok(SocketAddr::new(address, port.ok_or("the ingress of brokers has no port")?.try_into()?))
}
