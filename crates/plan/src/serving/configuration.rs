//! Configuration → Revisions. Stamps one Revision a generation; reports the newest and the newest ready.
//! Never deletes a Revision: `revision_gc` does.

use std::sync::Arc;

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    conditions::{FALSE, READY, TRUE},
    labels::serving as keys,
    names,
    serving::{Configuration, Revision},
};

use super::filled;
use crate::{
    Absence, EventType, Plan, Row, SystemConfig, Want, World, by_controller, children::union, status::Reporting,
};

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "configuration",
    of: Kind::Configuration,
    wakes: &[(Kind::Revision, by_controller)],
    // Where nobody else does it, Revisions are filled in by these.
    configs: &[SystemConfig::Serving("config-defaults"), SystemConfig::Serving("config-features")],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// Whether the Revision name that a template asks for can be had.
pub(crate) enum NameCheck {
    /// The template asks for no name.
    Unnamed,
    /// Nobody has it.
    Free,
    /// The Revision is there, and is what the template says.
    Stamped(Arc<Revision>),
    /// The name is someone else's, or another template's.
    Taken(String),
}

/// Looks up the Revision name that the template of `configuration` asks for. An older Revision of the
/// Configuration with the same spec counts as stamped, so that re-applying an old template rolls back.
pub(crate) fn check_name(world: &World, configuration: &Configuration) -> NameCheck {
    let Some(name) = configuration.spec.template.metadata.name.as_deref().filter(|name| !name.is_empty()) else {
        return NameCheck::Unnamed;
    };
    let Some(revision) = world.revisions.get(&configuration.key().sibling(name)) else { return NameCheck::Free };
    let ours = revision.is_controlled_by(configuration);
    if ours && (is_of_generation(&revision, configuration) || revision.spec == configuration.spec.template.spec) {
        return NameCheck::Stamped(revision.clone());
    }
    NameCheck::Taken(format!("revisions.serving.knative.dev \"{name}\" already exists"))
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(configuration) = world.configurations.get(key) else { return Plan::nothing() };
    if configuration.is_deleting() {
        return Plan::nothing();
    }
    let mut plan = Plan::nothing();
    let mut next = Configuration::clone(&configuration);
    next.conditions(now).initialize();
    match latest_created(world, &configuration) {
        NameCheck::Taken(why) => creation_failed(&mut next, &why, now),
        NameCheck::Stamped(revision) => follow(world, &configuration, &revision, &mut next, &mut plan, now),
        NameCheck::Free | NameCheck::Unnamed => stamp(world, &configuration, &mut next, &mut plan, now),
    }
    plan.report(configuration.as_ref(), next);
    // A creation that was refused is tried again only after the refusal is reported, for a refused want ends a plan.
    plan.wants.sort_by_key(|want| match want {
        Want::Create(object) if world.observed.refusals.contains_key(&(object.kind(), object.key())) => 1,
        _ => 0,
    });
    plan
}

/// The Revision of the newest generation.
fn latest_created(world: &World, configuration: &Configuration) -> NameCheck {
    match check_name(world, configuration) {
        NameCheck::Unnamed => {}
        named => return named,
    }
    let revisions = world.revisions.labelled(configuration.namespace(), keys::CONFIGURATION, configuration.name());
    match revisions.into_iter().find(|revision| is_of_generation(revision, configuration)) {
        Some(revision) => NameCheck::Stamped(revision.clone()),
        None => NameCheck::Unnamed,
    }
}

fn stamp(world: &World, configuration: &Configuration, next: &mut Configuration, plan: &mut Plan, now: Timestamp) {
    let revision = filled::revision(world, make_revision(configuration, now), now);
    let name = revision.name().to_owned();
    if let Some(refusal) = world.observed.refusals.get(&(Kind::Revision, revision.key())) {
        creation_failed(next, &refusal.message, now);
    } else {
        plan.event(configuration, EventType::Normal, "Created", format!("Created Revision \"{name}\""));
        set_latest_created(next, &name, now);
    }
    // The note tells of what the creation did.
    plan.wants.insert(0, Want::Create(revision.into()));
}

fn follow(
    world: &World,
    configuration: &Configuration,
    latest: &Revision,
    next: &mut Configuration,
    plan: &mut Plan,
    now: Timestamp,
) {
    set_latest_created(next, latest.name(), now);
    let ready = latest.condition(READY);
    match ready.map(|ready| ready.status.as_str()) {
        Some(TRUE) if configuration.status.latest_ready_revision_name.is_none() => {
            plan.event(configuration, EventType::Normal, "ConfigurationReady", "Configuration becomes ready");
        }
        Some(FALSE) => latest_failed(configuration, latest, next, plan, now),
        _ => {}
    }
    if let Some(newest) = newest_ready(world, configuration, latest) {
        set_latest_ready(configuration, &newest, next, plan, now);
    } else if let Some(gone) = deleted_latest_ready(world, configuration) {
        next.conditions(now).mark_false(READY, "RevisionDeleted", &format!("Revision \"{gone}\" was deleted."));
    }
}

fn creation_failed(next: &mut Configuration, why: &str, now: Timestamp) {
    let message = format!("Revision creation failed with message: {why}.");
    next.conditions(now).mark_false(READY, "RevisionFailed", &message);
}

fn set_latest_created(next: &mut Configuration, name: &str, now: Timestamp) {
    next.status.latest_created_revision_name = Some(name.to_owned());
    if next.status.latest_ready_revision_name.as_deref() != Some(name) {
        next.conditions(now).mark_unknown(READY, "", "");
    }
}

fn latest_failed(
    configuration: &Configuration,
    latest: &Revision,
    next: &mut Configuration,
    plan: &mut Plan,
    now: Timestamp,
) {
    let name = latest.name();
    let why = latest.condition(READY).map(|ready| ready.message.as_str()).unwrap_or_default();
    let message = format!("Revision \"{name}\" failed with message: {why}.");
    next.conditions(now).mark_false(READY, "RevisionFailed", &message);
    let was = configuration.condition(READY);
    if was.is_some_and(|was| was.status == FALSE && was.message == message) {
        return;
    }
    if configuration.status.latest_ready_revision_name.as_deref() == Some(name) {
        let text = format!("Latest ready revision \"{name}\" has failed");
        plan.event(configuration, EventType::Warning, "LatestReadyFailed", text);
    } else {
        let text = format!("Latest created revision \"{name}\" has failed");
        plan.event(configuration, EventType::Warning, "LatestCreatedFailed", text);
    }
}

fn set_latest_ready(
    configuration: &Configuration,
    newest: &str,
    next: &mut Configuration,
    plan: &mut Plan,
    now: Timestamp,
) {
    if configuration.status.latest_ready_revision_name.as_deref() != Some(newest) {
        let text = format!("LatestReadyRevisionName updated to \"{newest}\"");
        plan.event(configuration, EventType::Normal, "LatestReadyUpdate", text);
    }
    next.status.latest_ready_revision_name = Some(newest.to_owned());
    if next.status.latest_ready_revision_name == next.status.latest_created_revision_name {
        next.conditions(now).mark_true(READY);
    }
}

/// The newest ready Revision not older than the latest ready one; the one the template names comes first.
fn newest_ready(world: &World, configuration: &Configuration, latest: &Revision) -> Option<String> {
    let named = configuration.spec.template.metadata.name.as_deref().unwrap_or_default();
    let last_ready = configuration.status.latest_ready_revision_name.as_deref();
    let last_ready = last_ready.and_then(|name| world.revisions.get(&configuration.key().sibling(name)));
    let oldest = last_ready
        .map(|revision| generation(&revision).unwrap_or(configuration.metadata.generation.unwrap_or_default()));
    let in_range = |revision: &Revision| match (oldest, generation(revision)) {
        (None, _) => true,
        (Some(oldest), Some(at)) => at >= oldest || revision.name() == latest.name(),
        (Some(_), None) => false,
    };
    let revisions = world.revisions.labelled(configuration.namespace(), keys::CONFIGURATION, configuration.name());
    revisions
        .into_iter()
        .filter(|revision| in_range(revision) && revision.is_ready())
        .max_by_key(|revision| (revision.name() == named, generation(revision)))
        .map(|revision| revision.name().to_owned())
}

/// Name of the latest ready Revision, if that Revision is gone.
fn deleted_latest_ready(world: &World, configuration: &Configuration) -> Option<String> {
    let name = configuration.status.latest_ready_revision_name.as_deref()?;
    let gone = world.revisions.get(&configuration.key().sibling(name)).is_none();
    gone.then(|| name.to_owned())
}

/// Generation of the Configuration that a Revision was stamped from.
fn generation(revision: &Revision) -> Option<i64> {
    revision.label(keys::CONFIGURATION_GENERATION)?.parse().ok()
}

fn is_of_generation(revision: &Revision, configuration: &Configuration) -> bool {
    generation(revision) == Some(configuration.metadata.generation.unwrap_or_default())
}

/// The Revision of the newest generation of `configuration`.
fn make_revision(configuration: &Configuration, now: Timestamp) -> Revision {
    let template = &configuration.spec.template;
    let mut revision =
        Revision { metadata: template.metadata.clone(), spec: template.spec.clone(), ..Revision::default() };
    let generation = configuration.metadata.generation.unwrap_or_default();
    let meta = &mut revision.metadata;
    meta.namespace = configuration.metadata.namespace.clone();
    if meta.name.as_deref().is_none_or(str::is_empty) {
        meta.name = Some(names::child(configuration.name(), &format!("-{generation:05}")));
    }
    meta.owner_references.get_or_insert_default().push(configuration.controller_reference());
    let routes = configuration.annotation(keys::ROUTES);
    let state = if routes.is_some() { "active" } else { "pending" };
    let labels = [
        (keys::ROUTING_STATE, Some(state.to_owned())),
        (keys::CONFIGURATION, Some(configuration.name().to_owned())),
        (keys::CONFIGURATION_GENERATION, Some(generation.to_string())),
        (keys::CONFIGURATION_UID, Some(configuration.uid().to_owned())),
        (keys::SERVICE, configuration.label(keys::SERVICE).map(str::to_owned)),
        (keys::SERVICE_UID, configuration.label(keys::SERVICE_UID).map(str::to_owned)),
    ];
    let annotations = [
        (keys::ROUTING_STATE_MODIFIED, Some(rfc3339(now))),
        (keys::CREATOR, configuration.annotation(keys::LAST_MODIFIER).map(str::to_owned)),
        (keys::ROUTES, routes.map(str::to_owned)),
    ];
    meta.labels = Some(union(meta.labels.take().unwrap_or_default(), present(labels)));
    meta.annotations = Some(union(meta.annotations.take().unwrap_or_default(), present(annotations)));
    revision
}

fn present<const N: usize>(pairs: [(&str, Option<String>); N]) -> impl Iterator<Item = (String, String)> {
    let filled = pairs.map(|(key, value)| Some((key.to_owned(), value.filter(|value| !value.is_empty())?)));
    filled.into_iter().flatten()
}

/// A time as annotations hold it: whole seconds, UTC.
pub(super) fn rfc3339(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use knoll_api::{Key, Kind};

    use super::ROW;
    use crate::{
        Refusal,
        check::{Cluster, NOW, check, check_in},
    };

    const CONFIGURATION: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata:
  name: hello
  generation: 2
  labels: {serving.knative.dev/service: hello}
  annotations: {serving.knative.dev/lastModifier: me, serving.knative.dev/routes: hello}
spec: {template: {metadata: {labels: {app: x}}, spec: {containers: [{name: user-container, image: "img:2"}]}}}
status: {observedGeneration: 1, latestCreatedRevisionName: hello-00001, latestReadyRevisionName: hello-00001}
"#;

    fn revision(generation: u32, ready: &str) -> String {
        format!(
            r#"
---
apiVersion: serving.knative.dev/v1
kind: Revision
metadata:
  name: hello-0000{generation}
  owner: Configuration/hello
  labels: {{serving.knative.dev/configuration: hello, serving.knative.dev/configurationGeneration: "{generation}"}}
spec: {{containers: [{{name: user-container, image: "img:{generation}"}}]}}
status: {{observedGeneration: 1, conditions: [{{type: Ready, status: "{ready}", reason: R, message: m}}]}}
"#
        )
    }

    #[test]
    fn a_second_generation_stamps_a_second_revision() {
        let fixture = format!("{CONFIGURATION}{}", revision(1, "True"));
        check(
            &ROW,
            "default/hello",
            &fixture,
            expect![[r#"
            create Revision default/hello-00002
              labels app="x" serving.knative.dev/configuration="hello" serving.knative.dev/configurationGeneration="2" serving.knative.dev/configurationUID="uid-Configuration-hello" serving.knative.dev/routingState="active" serving.knative.dev/service="hello"
              annotations serving.knative.dev/creator="me" serving.knative.dev/routes="hello" serving.knative.dev/routingStateModified="2026-01-01T12:00:00Z"
              containers [{"image":"img:2","name":"user-container"}]
            note Created: Created Revision "hello-00002"
            status Configuration default/hello
              latestCreatedRevisionName "hello-00002"
              latestReadyRevisionName "hello-00001"
              observedGeneration 2
              Ready=Unknown
        "#]],
        );
    }

    #[test]
    fn the_newest_ready_revision_is_the_latest_ready_one() {
        let fixture = format!("{CONFIGURATION}{}{}", revision(1, "True"), revision(2, "True"));
        check(
            &ROW,
            "default/hello",
            &fixture,
            expect![[r#"
            note LatestReadyUpdate: LatestReadyRevisionName updated to "hello-00002"
            status Configuration default/hello
              latestCreatedRevisionName "hello-00002"
              latestReadyRevisionName "hello-00002"
              observedGeneration 2
              Ready=True
        "#]],
        );
    }

    #[test]
    fn a_failed_revision_leaves_the_one_before_it_in_service() {
        let fixture = format!("{CONFIGURATION}{}{}", revision(1, "True"), revision(2, "False"));
        check(
            &ROW,
            "default/hello",
            &fixture,
            expect![[r#"
            note LatestCreatedFailed: Latest created revision "hello-00002" has failed
            status Configuration default/hello
              latestCreatedRevisionName "hello-00002"
              latestReadyRevisionName "hello-00001"
              observedGeneration 2
              Ready=False RevisionFailed Revision "hello-00002" failed with message: m.
        "#]],
        );
    }

    #[test]
    fn a_refused_revision_is_reported_before_it_is_tried_again() {
        let mut cluster = Cluster::of(CONFIGURATION);
        let refusal = Refusal { reason: "Forbidden".into(), message: "quota is used up".into(), at: NOW };
        cluster.world.observed.refusals.insert((Kind::Revision, Key::new("default", "hello-00002")), refusal);
        check_in(
            &ROW,
            "default/hello",
            cluster,
            expect![[r#"
            status Configuration default/hello
              latestCreatedRevisionName "hello-00001"
              latestReadyRevisionName "hello-00001"
              observedGeneration 2
              Ready=False RevisionFailed Revision creation failed with message: quota is used up.
            create Revision default/hello-00002
              labels app="x" serving.knative.dev/configuration="hello" serving.knative.dev/configurationGeneration="2" serving.knative.dev/configurationUID="uid-Configuration-hello" serving.knative.dev/routingState="active" serving.knative.dev/service="hello"
              annotations serving.knative.dev/creator="me" serving.knative.dev/routes="hello" serving.knative.dev/routingStateModified="2026-01-01T12:00:00Z"
              containers [{"image":"img:2","name":"user-container"}]
        "#]],
        );
    }

    #[test]
    fn an_older_template_of_the_same_name_rolls_back() {
        let named = CONFIGURATION
            .replace("metadata: {labels: {app: x}}", "metadata: {name: hello-00001}")
            .replace("img:2", "img:1");
        let fixture = format!("{named}{}", revision(1, "True"));
        check(
            &ROW,
            "default/hello",
            &fixture,
            expect![[r#"
            status Configuration default/hello
              latestCreatedRevisionName "hello-00001"
              latestReadyRevisionName "hello-00001"
              observedGeneration 2
              Ready=True
        "#]],
        );
    }
}
