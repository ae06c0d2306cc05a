//! What the API server here, and Knative's webhook elsewhere, put in where a user said nothing. Over a cluster there may be
//! no such webhook, so what is made there is filled in here. What users wrote is left as it is: a default that changes later
//! makes nothing new.

use knoll_api::{
    Kind, Resource, Timestamp,
    admission::{Context, Operation, default},
    json,
    serving::{Revision, Service, TrafficTarget},
};

use crate::World;

/// A Revision that is about to be made.
pub(super) fn revision(world: &World, made: Revision, now: Timestamp) -> Revision {
    filled(world, Kind::Revision, &made, now).unwrap_or(made)
}

/// Where a Service sends its traffic.
pub(super) fn traffic(world: &World, service: &Service, now: Timestamp) -> Vec<TrafficTarget> {
    let filled = filled(world, Kind::Service, service, now);
    filled.map_or_else(|| service.spec.traffic.clone(), |filled: Service| filled.spec.traffic)
}

/// Nothing where somebody else does it.
fn filled<R: Resource>(world: &World, kind: Kind, object: &R, now: Timestamp) -> Option<R> {
    if world.settings.standalone {
        return None;
    }
    let mut value = json::value_of(object);
    let context = Context { config: &world.config, eventing: &world.eventing, user: "", now };
    default(kind, Operation::Create, &mut value, None, &context);
    json::typed(&value).ok()
}

#[cfg(test)]
mod tests {
    use knoll_api::{Key, Object};

    use crate::{
        Settings, Want,
        check::{Cluster, NOW},
        serving::{configuration, service},
    };

    const BARE: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello}
spec: {template: {spec: {containers: [{image: "img:1"}]}}}
"#;

    #[test]
    fn without_a_webhook_what_is_made_is_filled_in_and_what_was_written_is_not() {
        let mut cluster = Cluster::with(Settings { standalone: false, ..Settings::default() });
        cluster.add(BARE);
        let key = Key::new("default", "hello");
        for want in (service::ROW.plan)(&cluster.world, &key, NOW).wants {
            cluster.carry_out(&want, NOW);
        }
        let route = cluster.world.routes.get(&key).expect("made");
        assert_eq!((route.spec.traffic[0].latest_revision, route.spec.traffic[0].percent), (Some(true), Some(100)));
        let made = cluster.world.configurations.get(&key).expect("made");
        assert_eq!(made.spec.template.spec.timeout_seconds, None, "a default that changes later is no new template");
        let plan = (configuration::ROW.plan)(&cluster.world, &key, NOW);
        let Some(Want::Create(Object::Revision(revision))) = plan.wants.first() else { panic!("{:?}", plan.wants) };
        assert_eq!(revision.spec.pod_spec.containers[0].name, "user-container");
        assert_eq!(revision.spec.timeout_seconds, Some(300));
        let again = (service::ROW.plan)(&cluster.world, &key, NOW);
        assert!(!again.wants.iter().any(|want| matches!(want, Want::Update(_))), "{:?}", again.wants);
    }
}
