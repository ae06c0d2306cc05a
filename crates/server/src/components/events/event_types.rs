//! EventTypes of the events that are taken: made at the API server.

use std::sync::Arc;

use http::StatusCode;
use knoll_api::{Kind, Object, eventing::EventType};
use knoll_broker::{EventTypes, Made, NewTypes};
use knoll_client::{Client, Error};

use crate::{
    components::typed::post,
    supervise::{Stop, Tasks},
};

/// Makes EventTypes of what is noted, until the process ends.
pub(super) fn make(tasks: &mut Tasks, client: Client) -> Arc<EventTypes> {
    let (types, new) = EventTypes::new();
    let (made, stop) = (types.clone(), tasks.stop());
    tasks.critical("event types", async move {
        run(made, new, client, stop).await;
        Ok(())
    });
    types
}

async fn run(types: Arc<EventTypes>, new: NewTypes, client: Client, stop: Stop) {
    tokio::select! {
        () = types.make(new, |event_type| create(client.clone(), event_type)) => {}
        () = stop.wait() => {}
    }
}

async fn create(client: Client, event_type: EventType) -> Result<Made, String> {
    let namespace = event_type.metadata.namespace.clone().unwrap_or_default();
    let object = Object::EventType(Arc::new(event_type)).to_json();
    match post(&client, &Kind::EventType.collection_path(Some(&namespace)), &object).await {
        Ok(_) => Ok(Made::New),
        Err(Error::Api(status)) if status.code == StatusCode::CONFLICT.as_u16() => Ok(Made::Known),
        Err(error) => Err(error.to_string()),
    }
}
