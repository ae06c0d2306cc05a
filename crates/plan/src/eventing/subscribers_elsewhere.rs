//! Subscribers of channels of kinds that controllers do not know: each Subscription writes itself into its channel, as
//! upstream's do, and out of it before it goes.

use knoll_api::{Key, Resource, duck::ChannelableSpec, messaging::Subscription};
use serde_json::{Value, json};

use super::{
    channelable::Channelable,
    destination::duck_not_found,
    subscribers::{channel_of, subscriber},
    terms::duck_of,
};
use crate::{
    DuckKind, Plan, Want, World,
    ducks::{Lookup, Subscribable},
};

/// Holds a Subscription until it is out of its channel.
const FINALIZER: &str = "subscriptions.messaging.knative.dev";

fn is_held(subscription: &Subscription) -> bool {
    subscription.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// The Subscription with what holds it, where that is needed and missing.
pub(super) fn hold(world: &World, subscription: &Subscription) -> Option<Subscription> {
    let is_needed = |kind: &DuckKind| world.ducks.is_known(kind) == Some(true) && !is_held(subscription);
    duck_of(&subscription.spec.channel).filter(is_needed)?;
    let mut next = subscription.clone();
    next.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
    Some(next)
}

/// Takes a Subscription that is being deleted out of its channel, and lets it go. Where nothing is known of the channel, it
/// waits, for whoever takes the events there would go on sending them; unless its kind is served no more.
pub(super) fn leave(world: &World, subscription: &Subscription, plan: &mut Plan) {
    if !is_held(subscription) {
        return;
    }
    let key = channel_of(world, subscription);
    if let Some(kind) = duck_of(&subscription.spec.channel) {
        match world.ducks.look_up(&kind, &key) {
            Lookup::Unknown(_) if !world.ducks.is_absent(&kind) => return,
            Lookup::Unknown(_) => {}
            Lookup::Missing => {}
            Lookup::Found(object) => {
                let channel = object.channel.as_deref();
                let patch = channel.and_then(|channel| with(world, &kind, &key, channel, subscription.uid(), None));
                plan.wants.extend(patch);
            }
        }
    }
    let mut next = subscription.clone();
    next.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    plan.update(subscription, next);
}

/// Writes a Subscription into its channel, where that is of a kind that controllers do not know and holds another.
pub(super) fn join(world: &World, subscription: &Subscription, channel: &ChannelableSpec, plan: &mut Plan) {
    let Some(kind) = duck_of(&subscription.spec.channel) else { return };
    let key = channel_of(world, subscription);
    let Lookup::Found(object) = world.ducks.look_up(&kind, &key) else { return };
    let Some(there) = object.channel.as_deref() else { return };
    let wanted = subscriber(subscription, channel);
    if !channel.subscribers.contains(&wanted) {
        let wanted = Some(knoll_api::json::value_of(&wanted));
        plan.wants.extend(with(world, &kind, &key, there, subscription.uid(), wanted));
    }
}

/// The channel that is meant.
///
/// # Errors
/// When there is none, or what there is is none; in words for the user.
pub(super) fn find(world: &World, kind: &DuckKind, key: &Key) -> Result<Channelable, String> {
    match world.ducks.look_up(kind, key) {
        Lookup::Unknown(why) => Err(format!("nothing is known of {}: {why}", kind.kind)),
        Lookup::Missing => Err(duck_not_found(kind, &key.name)),
        Lookup::Found(object) => {
            let name = &kind.kind;
            let none =
                || format!("{name} {key} is no channel: it has no annotation messaging.knative.dev/subscribable");
            let channel = object.channel.as_deref().ok_or_else(none)?;
            let subscribers = channel.subscribers();
            let subscribers = subscribers.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect();
            let spec = ChannelableSpec { subscribers, delivery: channel.delivery.clone() };
            Ok(Channelable { spec, status: channel.status.clone() })
        }
    }
}

/// The channel with another subscriber in place of the one of a Subscription, or with none; nothing where it is so.
fn with(
    world: &World,
    kind: &DuckKind,
    key: &Key,
    channel: &Subscribable,
    uid: &str,
    wanted: Option<Value>,
) -> Option<Want> {
    let before = channel.subscribers();
    let mut subscribers = before.clone();
    match (subscribers.iter().position(|one| one["uid"] == uid), wanted) {
        (Some(at), Some(wanted)) => subscribers[at] = wanted,
        (Some(at), None) => drop(subscribers.remove(at)),
        (None, wanted) => subscribers.extend(wanted),
    }
    let meta = json!({"uid": channel.uid, "resourceVersion": channel.resource_version});
    let patch = json!({"metadata": meta, "spec": {"subscribers": subscribers}});
    (subscribers != before).then(|| Want::Patch { path: world.ducks.object_path(kind, key), patch })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            fixture::{cluster, unhappy},
            subscription::ROW,
        },
        *,
    };
    use crate::{
        DuckObject, DuckSeen,
        check::{Cluster, NOW, planned},
    };

    const SUBSCRIPTION: &str = r#"
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {name: s, finalizers: [subscriptions.messaging.knative.dev]}
spec:
  channel: {apiVersion: example.com/v1, kind: Pipe, name: c}
  subscriber: {uri: 'http://app'}
"#;

    fn see(cluster: &mut Cluster, seen: DuckSeen) {
        let kind = DuckKind::of("example.com/v1", "Pipe").expect("somebody's own");
        drop(cluster.world.see_duck(kind, seen));
    }

    fn pipe(subscribers: &Value, status: &Value) -> DuckSeen {
        let meta = json!({"name": "c", "uid": "u", "resourceVersion": "7",
                          "annotations": {"messaging.knative.dev/subscribable": "v1"}});
        let pipe = json!({"metadata": meta, "spec": {"subscribers": subscribers}, "status": status});
        DuckSeen::Put(Key::new("default", "c"), DuckObject::read(&pipe))
    }

    /// What it wants, which nobody carries out.
    fn wanted(cluster: &Cluster) -> Vec<Want> {
        (ROW.plan)(&cluster.world, &Key::new("default", "s"), NOW).wants
    }

    #[test]
    fn a_subscription_writes_itself_into_a_channel_of_somebodys_own() {
        let mut cluster = cluster(&[SUBSCRIPTION], &[]);
        see(&mut cluster, DuckSeen::Begins("pipes".into()));
        see(&mut cluster, DuckSeen::Listed);
        assert!(unhappy(&ROW, "default/s", &cluster).contains("ChannelReferenceFailed"));
        let other = json!({"uid": "other", "mine": 1});
        see(&mut cluster, pipe(&json!([other]), &Value::Null));
        let wants = wanted(&cluster);
        let [Want::Patch { path, patch }, Want::Status(_)] = wants.as_slice() else { panic!("{wants:?}") };
        assert_eq!(path, "/apis/example.com/v1/namespaces/default/pipes/c");
        let own = json!({"name": "s", "uid": "uid-Subscription-s", "generation": 1, "subscriberUri": "http://app"});
        assert_eq!(patch["spec"]["subscribers"], json!([other, own]));
        assert_eq!(patch["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
        let status = json!({"subscribers": [{"uid": "uid-Subscription-s", "observedGeneration": 1, "ready": "True"}]});
        see(&mut cluster, pipe(&json!([other, own]), &status));
        assert_eq!(unhappy(&ROW, "default/s", &cluster), "");
        let wants = wanted(&cluster);
        assert!(matches!(wants.as_slice(), [Want::Status(_)]), "{wants:?}");
    }

    #[test]
    fn a_subscription_is_out_of_its_channel_before_it_goes() {
        let free = SUBSCRIPTION.replace(", finalizers: [subscriptions.messaging.knative.dev]", "");
        let mut cluster = cluster(&[&free], &[]);
        see(&mut cluster, DuckSeen::Listed);
        let wants = planned(&ROW, "default/s", &cluster).wants;
        assert!(matches!(wants.as_slice(), [Want::Update(_)]), "it is held first: {wants:?}");
        let going = SUBSCRIPTION.replace("name: s,", "name: s, deletionTimestamp: '2025-06-15T15:00:00Z',");
        let mut cluster = super::super::fixture::cluster(&[&going], &[]);
        assert!(planned(&ROW, "default/s", &cluster).wants.is_empty(), "nothing is known of its channel");
        see(&mut cluster, DuckSeen::Begins("pipes".into()));
        see(&mut cluster, DuckSeen::Listed);
        see(&mut cluster, pipe(&json!([{"uid": "uid-Subscription-s"}, {"uid": "other"}]), &Value::Null));
        let wants = planned(&ROW, "default/s", &cluster).wants;
        let [Want::Patch { patch, .. }, Want::Update(_)] = wants.as_slice() else { panic!("{wants:?}") };
        assert_eq!(patch["spec"]["subscribers"], json!([{"uid": "other"}]));
        let away = DuckSeen::Absent("no".into());
        for (seen, may_go) in
            [(DuckSeen::Unknown("no".into()), 0), (away, 1), (DuckSeen::Gone(Key::new("default", "c")), 1)]
        {
            see(&mut cluster, seen);
            let wants = planned(&ROW, "default/s", &cluster).wants;
            assert_eq!(wants.len(), may_go, "{wants:?}");
        }
    }
}
