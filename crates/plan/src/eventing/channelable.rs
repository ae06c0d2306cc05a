//! Channels of any kind that is served: found, and made from a template.

use knoll_api::{
    Key, Kind, Object,
    duck::{ChannelableSpec, ChannelableStatus, KReference},
    k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta},
    messaging::ChannelTemplate,
};
use serde_json::{Value, json};

use super::destination::not_found;
use crate::{Plan, World};

/// Kinds of channels.
pub(super) const CHANNELS: [Kind; 2] = [Kind::InMemoryChannel, Kind::Channel];

/// A channel, whatever its kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Channelable {
    /// Its spec, but for what only its kind has.
    pub spec: ChannelableSpec,
    /// Its status, but for what only its kind has.
    pub status: ChannelableStatus,
}

/// The channel of this kind with this key.
pub(super) fn find(world: &World, kind: Kind, key: &Key) -> Option<Channelable> {
    match world.object(kind, key)? {
        Object::InMemoryChannel(channel) => {
            Some(Channelable { spec: channel.spec.clone(), status: channel.status.clone() })
        }
        Object::Channel(channel) => {
            Some(Channelable { spec: channel.spec.channelable.clone(), status: channel.status.channelable.clone() })
        }
        _ => None,
    }
}

/// The kind of channel that a template asks for.
///
/// # Errors
/// When there is no template, or no such kind here; in words for the user.
pub(super) fn kind_of(template: Option<&ChannelTemplate>, kinds: &[Kind]) -> Result<Kind, String> {
    let template = template.ok_or("there is no channelTemplate, and default-ch-webhook has no default")?;
    let kind = Kind::from_api(&template.api_version, &template.kind).filter(|kind| kinds.contains(kind));
    kind.ok_or_else(|| {
        let served: Vec<&str> = kinds.iter().map(|kind| kind.kind()).collect();
        let (kind, api_version) = (&template.kind, &template.api_version);
        format!("no channel of kind {kind} ({api_version}) is served here; name {}", served.join(" or "))
    })
}

/// Sees to the channel that a template asks for, and returns it as it stands; empty where it is yet to come.
///
/// # Errors
/// When it cannot be made; in words for the user.
pub(super) fn settle(
    world: &World,
    kind: Kind,
    metadata: ObjectMeta,
    spec: &ChannelableSpec,
    template: Option<&Value>,
    plan: &mut Plan,
) -> Result<Channelable, String> {
    let key = Key::of(&metadata);
    if let Some(channel) = find(world, kind, &key) {
        return Ok(channel);
    }
    let mut merged = knoll_api::json::value_of(spec);
    if let (Some(merged), Some(own)) = (merged.as_object_mut(), template.and_then(Value::as_object)) {
        merged.extend(own.clone());
    }
    let object = Object::from_json(kind, json!({"metadata": metadata, "spec": merged}));
    plan.create(object.map_err(|error| format!("failed to create channel {key}: channelTemplate.spec: {error}"))?);
    let refusal = world.observed.refusals.get(&(kind, key.clone()));
    refusal.map_or(Ok(Channelable::default()), |refusal| {
        Err(format!("failed to create channel {key}: {}", refusal.message))
    })
}

/// Names a channel as specs do.
pub(super) fn reference(kind: Kind, key: &Key) -> KReference {
    KReference {
        kind: kind.kind().to_owned(),
        api_version: kind.api_version(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        ..KReference::default()
    }
}

/// Names an object as the status of a flow does.
pub(super) fn object_reference(kind: Kind, key: &Key) -> ObjectReference {
    ObjectReference {
        kind: Some(kind.kind().to_owned()),
        api_version: Some(kind.api_version()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        ..ObjectReference::default()
    }
}

/// The channel that a reference means.
///
/// # Errors
/// When there is none, or none of a kind that is known here.
pub(super) fn look_up(world: &World, reference: &KReference, key: &Key) -> Result<(Kind, Channelable), String> {
    let kind = super::terms::kind_of(reference).filter(|kind| CHANNELS.contains(kind));
    let kind = kind.ok_or_else(|| {
        let group = if reference.api_version.is_empty() { &reference.group } else { &reference.api_version };
        format!("no channel of kind {} ({group}) is served here", reference.kind)
    })?;
    find(world, kind, key).map(|channel| (kind, channel)).ok_or_else(|| not_found(kind, &key.name))
}
