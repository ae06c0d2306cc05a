//! IntegrationSink: its name inside the cluster, and whether its events are taken.
//!
//! Upstream runs a pod for each. Here what needs no system outside, a log, is written by the data plane; sinks in clouds are
//! not carried out, and say so.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    eventing::services::{INTEGRATION_SINK, INTEGRATION_SINK_SECRET, INTEGRATION_SINK_SUFFIX},
    sinks::IntegrationSink,
};

use super::{
    Stopped,
    addresses::{self, Place},
    alias, carried, destination, policies,
};
use crate::{Absence, Mapper, Plan, Row, SystemConfig, World, by_controller, children::map, status::Reporting};

const DEPLOYMENT_READY: &str = "DeploymentReady";
const TRUST_BUNDLE_PROPAGATED: &str = "TrustBundlePropagated";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "integration-sink",
    of: Kind::IntegrationSink,
    wakes: WAKES,
    configs: &[SystemConfig::Eventing("config-features")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};
const WAKES: &[(Kind, Mapper)] =
    &[(Kind::CoreService, by_controller), (Kind::EventPolicy, policies::by_policy), (Kind::Secret, by_certificate)];

fn by_certificate(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    addresses::by_secret(world, object, of, INTEGRATION_SINK_SECRET)
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(sink) = world.integration_sinks.get(key).filter(|sink| !sink.is_deleting()) else { return plan };
    let mut next = IntegrationSink::clone(&sink);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(sink.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut IntegrationSink, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    // Nothing of it is in a pod that would have to be given certificates to trust.
    next.conditions(now).mark_true(TRUST_BUNDLE_PROPAGATED);
    check_kind(next, now)?;
    let name = map([("app.kubernetes.io/name", next.name())]);
    let alias = alias::settle(world, next, INTEGRATION_SINK_SUFFIX, name, INTEGRATION_SINK, plan).map_err(|why| {
        next.conditions(now).mark_false(DEPLOYMENT_READY, "ServiceFailed", &why);
        Stopped
    })?;
    if carried(world, next).is_some() {
        next.conditions(now).mark_true(DEPLOYMENT_READY);
    } else {
        let text = "The sink's events are not taken yet.";
        next.conditions(now).mark_unknown(DEPLOYMENT_READY, "DeploymentUnavailable", text);
    }
    // As channels have it: one certificate, and no new one for each sink.
    let all = destination::service_host(world, &Key::new(&world.settings.eventing_namespace, INTEGRATION_SINK));
    let place = Place {
        http: format!("http://{}", destination::service_host(world, &alias)),
        https: format!("https://{all}/{}/{}", next.namespace(), next.name()),
        secret: INTEGRATION_SINK_SECRET,
    };
    addresses::settle(world, next, place, now, |next| &mut next.status.address)?;
    let address = &mut next.status.address;
    if address.addresses.is_empty() {
        // Upstream lists the one address, too, for this kind alone.
        address.addresses = address.address.iter().cloned().collect();
    }
    policies::report(world, next, now, |next| &mut next.status.policies);
    Ok(())
}

/// Says of a sink in a cloud that it is not carried out.
fn check_kind(next: &mut IntegrationSink, now: Timestamp) -> Result<(), Stopped> {
    let Some(aws) = &next.spec.aws else { return Ok(()) };
    let parts = [(aws.s3.is_some(), "s3"), (aws.sqs.is_some(), "sqs"), (aws.sns.is_some(), "sns")];
    let part = parts.iter().find(|(there, _)| *there).map_or("aws", |(_, part)| part);
    let text = format!(
        "spec.aws.{part} is not carried out by this version, and events are not taken: sinks in clouds come with a later \
         one. spec.log is carried out"
    );
    next.status.address = Default::default();
    next.conditions(now).mark_false(DEPLOYMENT_READY, "NotSupported", &text);
    Err(Stopped)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, status, unhappy};
    use super::*;
    use crate::check::{check_in, planned};

    const SINK: &str = "apiVersion: sinks.knative.dev/v1alpha1\nkind: IntegrationSink\nmetadata: {name: i}\n\
                        spec: {log: {level: INFO}}\n";
    const CARRIED: &[(Kind, &str)] = &[(Kind::IntegrationSink, "i")];

    #[test]
    fn a_log_gets_a_name_and_is_ready_once_its_events_are_taken() {
        let told = unhappy(&ROW, "default/i", &cluster(&[SINK], &[]));
        assert!(
            told.contains("DeploymentReady=Unknown DeploymentUnavailable The sink's events are not taken yet.\n"),
            "{told}"
        );
        check_in(
            &ROW,
            "default/i",
            cluster(&[SINK], CARRIED),
            expect![[r#"
            create Service default/i-deployment
              labels app.kubernetes.io/name="i"
              externalName "integration-sink.knative-eventing.svc.cluster.local"
              ports [{"name":"http","port":80,"protocol":"TCP"}]
              type "ExternalName"
            status IntegrationSink default/i
              address {"name":"http","url":"http://i-deployment.default.svc.cluster.local"}
              addresses [{"name":"http","url":"http://i-deployment.default.svc.cluster.local"}]
              observedGeneration 1
              Addressable=True
              DeploymentReady=True
              EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
              Ready=True
              TrustBundlePropagated=True
        "#]],
        );
    }

    #[test]
    fn a_sink_in_a_cloud_says_that_it_is_not_carried_out() {
        let cloud = SINK.replace("log: {level: INFO}", "aws: {sns: {arn: a, region: r}}");
        let cluster = cluster(&[&cloud], CARRIED);
        let told = unhappy(&ROW, "default/i", &cluster);
        let text = "NotSupported spec.aws.sns is not carried out by this version, and events are not taken: sinks in clouds \
                    come with a later one. spec.log is carried out\n";
        assert!(told.contains(&format!("DeploymentReady=False {text}")), "{told}");
        assert!(status(&planned(&ROW, "default/i", &cluster)).get("address").is_none());
    }

    #[test]
    fn a_name_that_is_anothers_is_told() {
        let taken = "apiVersion: v1\nkind: Service\nmetadata: {name: i-deployment}\n";
        let told = unhappy(&ROW, "default/i", &cluster(&[SINK, taken], CARRIED));
        let text = "integrationsink: default/i does not own Service: \"i-deployment\"\n";
        assert!(told.contains(&format!("DeploymentReady=False ServiceFailed {text}")), "{told}");
    }

    #[test]
    fn a_sink_is_addressed_by_the_features() {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: integration-sink-server-tls, namespace: \
                      knative-eventing}\ndata: {ca.crt: UEVN}\n";
        let mut cluster = cluster(&[SINK, secret], CARRIED);
        feature(&mut cluster, "transport-encryption", "permissive");
        feature(&mut cluster, "authentication-oidc", "enabled");
        let addresses = &status(&planned(&ROW, "default/i", &cluster))["addresses"];
        let expected = expect![[
            r#"[{"CACerts":"PEM","audience":"sinks.knative.dev/integrationsink/default/i","name":"https","url":"https://integration-sink.knative-eventing.svc.cluster.local/default/i"},{"audience":"sinks.knative.dev/integrationsink/default/i","name":"http","url":"http://i-deployment.default.svc.cluster.local"}]"#
        ]];
        expected.assert_eq(&addresses.to_string());
    }
}
