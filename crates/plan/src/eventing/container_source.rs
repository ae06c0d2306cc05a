//! ContainerSource → a Deployment of its template, and a SinkBinding that tells it where events go.

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    conditions::READY,
    k8s_openapi::{
        api::{
            apps::v1::{Deployment, DeploymentSpec},
            core::v1::{Container, PodTemplateSpec},
        },
        apimachinery::pkg::apis::meta::v1::LabelSelector,
    },
    names,
    sources::{BindingSubject, ContainerSource, SinkBinding, SinkBindingSpec},
    status::{Condition, DuckStatus},
};

use super::{Stopped, follow, sink_binding::bound, token_secret, trust_bundles};
use crate::{
    Absence, EventType, Plan, Row, World, by_controller,
    children::{child_of, map, says, union},
    status::Reporting,
};

const SINK_BINDING_READY: &str = "SinkBindingReady";
const RECEIVE_ADAPTER_READY: &str = "ReceiveAdapterReady";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "container-source",
    of: Kind::ContainerSource,
    wakes: &[(Kind::Deployment, by_controller), (Kind::SinkBinding, by_controller)],
    configs: &[],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(source) = world.container_sources.get(key).filter(|source| !source.is_deleting()) else { return plan };
    let mut next = ContainerSource::clone(&source);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(source.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut ContainerSource, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    let not_owned = |next: &mut ContainerSource, type_: &str, kind: &str, name: &str| {
        let text = format!("{kind} {name:?} is not owned by ContainerSource {:?}", next.name());
        next.conditions(now).mark_false(type_, "NotOwned", &text);
        Stopped
    };
    let binding =
        settle_binding(world, next, plan).map_err(|name| not_owned(next, SINK_BINDING_READY, "SinkBinding", &name))?;
    follow_binding(next, binding, now);
    let deployment = settle_deployment(world, next, plan)
        .map_err(|name| not_owned(next, RECEIVE_ADAPTER_READY, "deployment", &name))?;
    follow_deployment(next, &deployment, now);
    Ok(())
}

/// Sees to the SinkBinding, and returns it as it stands.
///
/// # Errors
/// With its name, when that is another's.
fn settle_binding(world: &World, source: &ContainerSource, plan: &mut Plan) -> Result<SinkBinding, String> {
    let name = names::child(source.name(), "-sinkbinding");
    let subject = BindingSubject {
        api_version: Kind::Deployment.api_version(),
        kind: Kind::Deployment.kind().to_owned(),
        namespace: source.namespace().to_owned(),
        name: deployment_name(source),
        selector: None,
    };
    let wanted = SinkBinding {
        metadata: child_of(source, name.clone(), Default::default(), Default::default()),
        spec: SinkBindingSpec { source: source.spec.source.clone(), subject },
        ..SinkBinding::default()
    };
    let Some(existing) = world.sink_bindings.get(&wanted.key()) else {
        plan.create(wanted.clone());
        let text = format!("SinkBinding created {name:?}");
        plan.event(source, EventType::Normal, "ContainerSourceSinkBindingCreated", text);
        return Ok(wanted);
    };
    if !existing.is_controlled_by(source) {
        return Err(name);
    }
    if !says(&existing.spec, &wanted.spec) {
        plan.update(existing.as_ref(), SinkBinding { spec: wanted.spec, ..SinkBinding::clone(&existing) });
    }
    Ok(SinkBinding::clone(&existing))
}

/// What the binding says of the sink, the source says.
fn follow_binding(next: &mut ContainerSource, binding: SinkBinding, now: Timestamp) {
    let ready = binding.condition(READY).cloned();
    let own = std::mem::take(&mut next.status.common);
    next.status = binding.status.source;
    next.status.common = DuckStatus { annotations: next.status.common.annotations.clone(), ..own };
    follow(next, SINK_BINDING_READY, ready.as_ref(), ("", ""), now);
}

fn deployment_name(source: &ContainerSource) -> String {
    names::child(source.name(), "-deployment")
}

/// Sees to the Deployment, and returns it as it stands.
///
/// # Errors
/// With its name, when that is another's.
fn settle_deployment(world: &World, source: &ContainerSource, plan: &mut Plan) -> Result<Deployment, String> {
    let wanted = deployment(source);
    let Some(existing) = world.deployments.get(&wanted.key()) else {
        plan.create(wanted.clone());
        let text = format!("Deployment created {:?}", wanted.name());
        plan.event(source, EventType::Normal, "ContainerSourceDeploymentCreated", text);
        return Ok(wanted);
    };
    if !existing.is_controlled_by(source) {
        return Err(existing.name().to_owned());
    }
    let mut next = Deployment::clone(&existing);
    if let (Some(there), Some(wanted)) = (next.spec.as_mut(), wanted.spec) {
        let template = bound_like(wanted.template, &there.template);
        if !says(&there.template, &template) {
            there.template = template;
        }
    }
    plan.update(existing.as_ref(), next);
    Ok(Deployment::clone(&existing))
}

fn deployment(source: &ContainerSource) -> Deployment {
    let own = map([
        ("sources.knative.dev/source", "container-source-controller"),
        ("sources.knative.dev/containerSource", source.name()),
    ]);
    let mut template = source.spec.template.clone();
    let metadata = template.metadata.get_or_insert_default();
    let labels = union(metadata.labels.clone().unwrap_or_default(), own);
    metadata.labels = Some(labels.clone());
    let annotations = metadata.annotations.clone().unwrap_or_default();
    Deployment {
        metadata: child_of(source, deployment_name(source), labels.clone(), annotations),
        spec: Some(DeploymentSpec {
            selector: LabelSelector { match_labels: Some(labels), match_expressions: None },
            template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// The template with what the SinkBinding has put into the one that is there.
pub(super) fn bound_like(mut template: PodTemplateSpec, there: &PodTemplateSpec) -> PodTemplateSpec {
    let mut volumes = there.spec.as_ref().map(trust_bundles::volumes).unwrap_or_default();
    volumes.extend(there.spec.iter().flat_map(token_secret::volumes));
    if let Some(pod) = template.spec.as_mut().filter(|_| !volumes.is_empty()) {
        pod.volumes.get_or_insert_default().extend(volumes);
    }
    let containers = |spec: &PodTemplateSpec| -> Vec<Container> {
        let pod = spec.spec.iter();
        pod.flat_map(|pod| pod.init_containers.iter().flatten().chain(&pod.containers)).cloned().collect()
    };
    let there = containers(there);
    let pod = template.spec.iter_mut();
    for container in pod.flat_map(|pod| pod.init_containers.iter_mut().flatten().chain(&mut pod.containers)) {
        let same = there.iter().find(|there| there.name == container.name);
        let bound = same.map(bound).unwrap_or_default();
        if !bound.is_empty() {
            container.env.get_or_insert_default().extend(bound);
        }
        let mut mounted = same.map(trust_bundles::mounted).unwrap_or_default();
        mounted.extend(same.into_iter().flat_map(token_secret::mounted));
        if !mounted.is_empty() {
            container.volume_mounts.get_or_insert_default().extend(mounted);
        }
    }
    template
}

fn follow_deployment(next: &mut ContainerSource, deployment: &Deployment, now: Timestamp) {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let available =
        conditions.into_iter().find(|condition| condition.type_ == "Available").map(|condition| Condition {
            status: condition.status.clone(),
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
            ..Condition::default()
        });
    let text = format!("The Deployment '{}' is unavailable.", deployment.name());
    follow(next, RECEIVE_ADAPTER_READY, available.as_ref(), ("DeploymentUnavailable", &text), now);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::super::fixture::{cluster, unhappy};
    use super::*;
    use crate::check::{Cluster, NOW, check_in, planned};

    const SOURCE: &str = r#"
apiVersion: sources.knative.dev/v1
kind: ContainerSource
metadata: {name: s}
spec:
  sink: {uri: 'http://sink'}
  template: {metadata: {labels: {team: a}}, spec: {containers: [{name: c, image: i, env: [{name: X, value: z}]}]}}
"#;

    fn made() -> Cluster {
        let mut cluster = cluster(&[SOURCE], &[]);
        planned(&ROW, "default/s", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        cluster
    }

    #[test]
    fn a_container_source_gets_a_deployment_and_a_binding() {
        check_in(
            &ROW,
            "default/s",
            cluster(&[SOURCE], &[]),
            expect![[r#"
            create SinkBinding default/s-sinkbinding
              sink {"uri":"http://sink"}
              subject {"apiVersion":"apps/v1","kind":"Deployment","name":"s-deployment","namespace":"default"}
            note ContainerSourceSinkBindingCreated: SinkBinding created "s-sinkbinding"
            create Deployment default/s-deployment
              labels sources.knative.dev/containerSource="s" sources.knative.dev/source="container-source-controller" team="a"
              selector {"matchLabels":{"sources.knative.dev/containerSource":"s","sources.knative.dev/source":"container-source-controller","team":"a"}}
              template {"metadata":{"labels":{"sources.knative.dev/containerSource":"s","sources.knative.dev/source":"container-source-controller","team":"a"}},"spec":{"containers":[{"env":[{"name":"X","value":"z"}],"image":"i","name":"c"}]}}
            note ContainerSourceDeploymentCreated: Deployment created "s-deployment"
            status ContainerSource default/s
              observedGeneration 1
              Ready=Unknown DeploymentUnavailable The Deployment 's-deployment' is unavailable.
              ReceiveAdapterReady=Unknown DeploymentUnavailable The Deployment 's-deployment' is unavailable.
              SinkBindingReady=Unknown
        "#]],
        );
    }

    #[test]
    fn a_container_source_is_ready_when_both_are_and_keeps_what_the_binding_put_there() {
        let mut cluster = made();
        let (deployment, binding) = (Key::new("default", "s-deployment"), Key::new("default", "s-sinkbinding"));
        cluster.edit(Kind::SinkBinding, &binding, |value| {
            value["status"] = json!({"sinkUri": "http://sink", "observedGeneration": 9,
                                     "conditions": [{"type": "Ready", "status": "True"}]});
        });
        cluster.edit(Kind::Deployment, &deployment, |value| {
            value["status"] = json!({"conditions": [{"type": "Available", "status": "True"}]});
            let env = &mut value["spec"]["template"]["spec"]["containers"][0]["env"];
            env.as_array_mut().expect("a list").push(json!({"name": "K_SINK", "value": "http://sink"}));
        });
        check_in(
            &ROW,
            "default/s",
            cluster.clone(),
            expect![[r#"
            status ContainerSource default/s
              observedGeneration 1
              sinkUri "http://sink"
              Ready=True
              ReceiveAdapterReady=True
              SinkBindingReady=True
        "#]],
        );
        for (condition, expected) in [
            (
                json!([{"type": "Available", "status": "False", "reason": "R", "message": "m"}]),
                "ReceiveAdapterReady=False R m\n",
            ),
            (
                json!([]),
                "ReceiveAdapterReady=Unknown DeploymentUnavailable The Deployment 's-deployment' is unavailable.\n",
            ),
        ] {
            cluster.edit(Kind::Deployment, &deployment, |value| value["status"] = json!({"conditions": condition}));
            let told = unhappy(&ROW, "default/s", &cluster);
            assert!(told.contains(expected), "{told}");
        }
        cluster.edit(Kind::SinkBinding, &binding, |value| {
            value["status"] =
                json!({"conditions": [{"type": "Ready", "status": "False", "reason": "R", "message": "m"}]});
        });
        assert!(unhappy(&ROW, "default/s", &cluster).contains("SinkBindingReady=False R m\n"));
    }

    #[test]
    fn a_template_that_changes_changes_the_deployment() {
        let mut cluster = made();
        cluster.edit(Kind::ContainerSource, &Key::new("default", "s"), |value| {
            value["spec"]["template"]["spec"]["containers"][0]["image"] = "j".into();
        });
        let plan = planned(&ROW, "default/s", &cluster);
        assert!(matches!(&plan.wants[0], crate::Want::Update(knoll_api::Object::Deployment(_))), "{plan:?}");
    }

    #[test]
    fn a_name_that_is_anothers_is_told() {
        let taken = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: s-deployment}\nspec: {selector: {}, template: {}}\n";
        let told = unhappy(&ROW, "default/s", &cluster(&[SOURCE, taken], &[]));
        let text =
            "ReceiveAdapterReady=False NotOwned deployment \"s-deployment\" is not owned by ContainerSource \"s\"\n";
        assert!(told.contains(text), "{told}");
    }
}
