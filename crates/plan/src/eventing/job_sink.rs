//! JobSink: where its events go. The data plane makes a Job of each.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    eventing::services::{JOB_SINK, JOB_SINK_SECRET},
    sinks::JobSink,
};

use super::{
    ADDRESSABLE, Stopped,
    addresses::{self, Place},
    carried, destination, policies,
};
use crate::{Absence, Mapper, Plan, Row, SystemConfig, World, status::Reporting};

/// Label of a JobSink's Jobs: its name.
pub(super) const NAME_LABEL: &str = "sinks.knative.dev/job-sink-name";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "job-sink",
    of: Kind::JobSink,
    wakes: WAKES,
    configs: &[SystemConfig::Eventing("config-features")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};
const WAKES: &[(Kind, Mapper)] = &[(Kind::EventPolicy, policies::by_policy), (Kind::Secret, by_certificate)];

fn by_certificate(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    addresses::by_secret(world, object, of, JOB_SINK_SECRET)
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(sink) = world.job_sinks.get(key).filter(|sink| !sink.is_deleting()) else { return plan };
    let mut next = JobSink::clone(&sink);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, now).unwrap_or(());
    plan.report(sink.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut JobSink, now: Timestamp) -> Result<(), Stopped> {
    if next.spec.job.is_some() {
        next.status.job.selector = format!("{NAME_LABEL}={}", next.name());
    }
    addresses::settle(world, next, place(world, next), now, |next| &mut next.status.address)?;
    if carried(world, next).is_none() {
        let text = "The JobSink's events are not taken yet.";
        next.conditions(now).mark_unknown(ADDRESSABLE, "EventsNotTaken", text);
    }
    policies::report(world, next, now, |next| &mut next.status.policies);
    Ok(())
}

/// Where the JobSink takes events: all of them in one place, told apart by path.
fn place(world: &World, sink: &JobSink) -> Place {
    let host = destination::service_host(world, &Key::new(&world.settings.eventing_namespace, JOB_SINK));
    let path = format!("{}/{}", sink.namespace(), sink.name());
    Place { http: format!("http://{host}/{path}"), https: format!("https://{host}/{path}"), secret: JOB_SINK_SECRET }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, status, unhappy};
    use super::*;
    use crate::check::{check_in, planned};

    const SINK: &str = "apiVersion: sinks.knative.dev/v1alpha1\nkind: JobSink\nmetadata: {name: j}\n\
                        spec: {job: {spec: {template: {spec: {containers: [{name: c, image: i}]}}}}}\n";
    const CARRIED: &[(Kind, &str)] = &[(Kind::JobSink, "j")];

    #[test]
    fn a_job_sink_is_ready_once_its_events_are_taken() {
        let told = unhappy(&ROW, "default/j", &cluster(&[SINK], &[]));
        assert!(
            told.contains("Addressable=Unknown EventsNotTaken The JobSink's events are not taken yet.\n"),
            "{told}"
        );
        check_in(
            &ROW,
            "default/j",
            cluster(&[SINK], CARRIED),
            expect![[r#"
            status JobSink default/j
              address {"name":"http","url":"http://job-sink.knative-eventing.svc.cluster.local/default/j"}
              job {"selector":"sinks.knative.dev/job-sink-name=j"}
              observedGeneration 1
              Addressable=True
              EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
              Ready=True
        "#]],
        );
    }

    #[test]
    fn a_job_sink_is_addressed_by_the_features() {
        let mut cluster = cluster(&[SINK], CARRIED);
        feature(&mut cluster, "transport-encryption", "strict");
        feature(&mut cluster, "authentication-oidc", "enabled");
        let told = unhappy(&ROW, "default/j", &cluster);
        let text = "failed to get CA certs from knative-eventing/job-sink-server-tls: secrets \"job-sink-server-tls\" not found";
        assert!(told.contains(&format!("Addressable=Unknown CACertsNotAvailable {text}\n")), "{told}");
        cluster.add(
            "apiVersion: v1\nkind: Secret\nmetadata: {name: job-sink-server-tls, namespace: knative-eventing}\n\
             data: {ca.crt: UEVN}\n",
        );
        let address = &status(&planned(&ROW, "default/j", &cluster))["address"];
        let expected = expect![[
            r#"{"CACerts":"PEM","audience":"sinks.knative.dev/jobsink/default/j","name":"https","url":"https://job-sink.knative-eventing.svc.cluster.local/default/j"}"#
        ]];
        expected.assert_eq(&address.to_string());
    }
}
