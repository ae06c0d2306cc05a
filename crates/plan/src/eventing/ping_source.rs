//! PingSource: where its events go, and whether its schedule is kept.

use knoll_api::{Key, Kind, Resource, Timestamp, duck::CloudEventAttributes, sources::PingSource};

use super::{Stopped, destination, identity, is_carried, source::settle_sink, terms::is_decidable};
use crate::{Absence, Mapper, Plan, Row, SystemConfig, World, by_controller, status::Reporting};

/// Type of the events.
const EVENT_TYPE: &str = "dev.knative.sources.ping";
const DEPLOYED: &str = "Deployed";

const WAKES: [(Kind, Mapper); 14] = destination::wakes([(Kind::ServiceAccount, by_controller)]);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "ping-source",
    of: Kind::PingSource,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("config-kreference-mapping")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(source) = world.ping_sources.get(key).filter(|source| is_decidable(world, source.as_ref())) else {
        return plan;
    };
    let mut next = PingSource::clone(&source);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(source.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut PingSource, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    identity::settle(world, next, plan, now, |next| &mut next.status.auth)?;
    let sink = next.spec.source.sink.clone();
    settle_sink(world, next, &sink, now, |why| ("NotFound", why), |next| &mut next.status)?;
    let source = format!("/apis/v1/namespaces/{}/pingsources/{}", next.namespace(), next.name());
    next.status.ce_attributes = vec![CloudEventAttributes { type_: EVENT_TYPE.to_owned(), source }];
    if is_carried(world, next) {
        next.conditions(now).mark_true(DEPLOYED);
    } else {
        next.conditions(now).mark_unknown(DEPLOYED, "DeploymentUnavailable", "The schedule is not kept yet.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, status, unhappy};
    use super::*;
    use crate::check::{check_in, planned};

    const SOURCE: &str = r#"
apiVersion: sources.knative.dev/v1
kind: PingSource
metadata: {name: p}
spec: {schedule: "* * * * *", data: x, sink: {ref: {apiVersion: v1, kind: Service, name: app}}}
"#;
    const APP: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: app}\n";

    #[test]
    fn a_ping_source_is_ready_once_its_schedule_is_kept() {
        let told = unhappy(&ROW, "default/p", &cluster(&[SOURCE, APP], &[]));
        assert!(told.starts_with("Deployed=Unknown DeploymentUnavailable The schedule is not kept yet.\n"), "{told}");
        check_in(
            &ROW,
            "default/p",
            cluster(&[SOURCE, APP], &[(Kind::PingSource, "p")]),
            expect![[r#"
                status PingSource default/p
                  ceAttributes [{"source":"/apis/v1/namespaces/default/pingsources/p","type":"dev.knative.sources.ping"}]
                  observedGeneration 1
                  sinkUri "http://app.default.svc.cluster.local"
                  Deployed=True
                  OIDCIdentityCreated=True authentication-oidc feature disabled
                  Ready=True
                  SinkProvided=True
            "#]],
        );
    }

    #[test]
    fn a_sink_without_an_address_is_told_and_no_longer_shown() {
        let known = format!("{SOURCE}status: {{sinkUri: 'http://old'}}\n");
        let cluster = cluster(&[&known], &[]);
        let told = unhappy(&ROW, "default/p", &cluster);
        let text = "SinkProvided=False NotFound failed to get object default/app: services \"app\" not found\n";
        assert!(told.contains(text), "{told}");
        assert!(status(&planned(&ROW, "default/p", &cluster)).get("sinkUri").is_none());
    }

    #[test]
    fn a_ping_source_sends_under_a_name_of_its_own_where_senders_are_to_say_who_they_are() {
        let mut cluster = cluster(&[SOURCE, APP], &[]);
        feature(&mut cluster, "authentication-oidc", "enabled");
        let status = status(&planned(&ROW, "default/p", &cluster));
        assert_eq!(status["auth"]["serviceAccountName"], "p-oidc-sources.knative.dev-pingsource");
    }
}
