//! IntegrationSource: where its events go, and whether they are made.
//!
//! Upstream runs a ContainerSource for each. Here what needs no system outside, a timer, is kept by the data plane; sources
//! in clouds are not carried out, and say so.

use knoll_api::{Key, Kind, Timestamp, sources::IntegrationSource};

use super::{Stopped, destination, identity, is_carried, source, terms::is_decidable};
use crate::{Absence, Mapper, Plan, Row, SystemConfig, World, by_controller, status::Reporting};

const CONTAINER_SOURCE_READY: &str = "ContainerSourceReady";

const WAKES: [(Kind, Mapper); 14] = destination::wakes([(Kind::ServiceAccount, by_controller)]);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "integration-source",
    of: Kind::IntegrationSource,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("config-kreference-mapping")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

/// Whether a source is one that the data plane can be.
pub(super) fn is_ours(source: &IntegrationSource) -> bool {
    source.spec.timer.is_some() && source.spec.aws.is_none()
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(source) = world.integration_sources.get(key).filter(|source| is_decidable(world, source.as_ref())) else {
        return plan;
    };
    let mut next = IntegrationSource::clone(&source);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(source.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut IntegrationSource, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    check_kind(next, now)?;
    identity::settle(world, next, plan, now, |next| &mut next.status.auth)?;
    let sink = next.spec.source.sink.clone();
    if let Err(why) = source::find_sink(world, next, &sink, |next| &mut next.status) {
        let text = format!("Addressable could not be extracted from destination: {why}");
        next.conditions(now).mark_false(CONTAINER_SOURCE_READY, "NoAddressable", &text);
        return Err(Stopped);
    }
    if is_carried(world, next) {
        next.conditions(now).mark_true(CONTAINER_SOURCE_READY);
    } else {
        let text = "The source's events are not made yet.";
        next.conditions(now).mark_unknown(CONTAINER_SOURCE_READY, "DeploymentUnavailable", text);
    }
    Ok(())
}

/// Says of a source in a cloud that it is not carried out.
fn check_kind(next: &mut IntegrationSource, now: Timestamp) -> Result<(), Stopped> {
    if is_ours(next) {
        return Ok(());
    }
    let aws = next.spec.aws.iter();
    let part = aws.flat_map(|aws| {
        [(aws.s3.is_some(), "aws.s3"), (aws.sqs.is_some(), "aws.sqs"), (aws.ddb_streams.is_some(), "aws.ddbStreams")]
    });
    let part = part.into_iter().find(|(there, _)| *there).map_or("aws", |(_, part)| part);
    let text = format!(
        "spec.{part} is not carried out by this version, and no events are made: sources in clouds come with a later one. \
         spec.timer is carried out"
    );
    (next.status.sink_uri, next.status.sink_ca_certs, next.status.sink_audience) = (None, None, None);
    next.conditions(now).mark_false(CONTAINER_SOURCE_READY, "NotSupported", &text);
    Err(Stopped)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, status, unhappy};
    use super::*;
    use crate::check::{check_in, planned};

    const SOURCE: &str = "apiVersion: sources.knative.dev/v1alpha1\nkind: IntegrationSource\nmetadata: {name: t}\n\
                          spec: {timer: {period: 1000, message: x}, sink: {ref: {apiVersion: v1, kind: Service, name: app}}}\n";
    const APP: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: app}\n";

    #[test]
    fn a_timer_is_ready_once_its_events_are_made() {
        let told = unhappy(&ROW, "default/t", &cluster(&[SOURCE, APP], &[]));
        let text = "ContainerSourceReady=Unknown DeploymentUnavailable The source's events are not made yet.\n";
        assert!(told.starts_with(text), "{told}");
        check_in(
            &ROW,
            "default/t",
            cluster(&[SOURCE, APP], &[(Kind::IntegrationSource, "t")]),
            expect![[r#"
            status IntegrationSource default/t
              observedGeneration 1
              sinkUri "http://app.default.svc.cluster.local"
              ContainerSourceReady=True
              OIDCIdentityCreated=True authentication-oidc feature disabled
              Ready=True
        "#]],
        );
    }

    #[test]
    fn a_sink_without_an_address_is_told_and_no_longer_shown() {
        let known = format!("{SOURCE}status: {{sinkUri: 'http://old'}}\n");
        let cluster = cluster(&[&known], &[]);
        let told = unhappy(&ROW, "default/t", &cluster);
        let text = "ContainerSourceReady=False NoAddressable Addressable could not be extracted from destination: failed to \
                    get object default/app: services \"app\" not found\n";
        assert!(told.contains(text), "{told}");
        assert!(status(&planned(&ROW, "default/t", &cluster)).get("sinkUri").is_none());
    }

    #[test]
    fn a_source_in_a_cloud_says_that_it_is_not_carried_out() {
        let cloud = SOURCE.replace("timer: {period: 1000, message: x}", "aws: {ddbStreams: {table: t, region: r}}");
        let told = unhappy(&ROW, "default/t", &cluster(&[&cloud, APP], &[(Kind::IntegrationSource, "t")]));
        let text = "ContainerSourceReady=False NotSupported spec.aws.ddbStreams is not carried out by this version, and no \
                    events are made: sources in clouds come with a later one. spec.timer is carried out\n";
        assert!(told.contains(text), "{told}");
    }

    #[test]
    fn a_timer_sends_under_a_name_of_its_own_where_senders_are_to_say_who_they_are() {
        let mut cluster = cluster(&[SOURCE, APP], &[]);
        feature(&mut cluster, "authentication-oidc", "enabled");
        let status = status(&planned(&ROW, "default/t", &cluster));
        assert_eq!(status["auth"]["serviceAccountName"], "t-oidc-sources.knative.dev-integrationsource");
    }
}
