//! One leader among the processes that take on the same role: who holds a Lease plans, the others wait.
//!
//! A holder renews well before its time is over, and stops before others may take over when it cannot. Whether a holder
//! is alive is judged by how long its Lease has not changed, by the clock of who looks: no two machines' clocks are
//! compared.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{Api, ApiError};

/// How long a Lease lasts that is not renewed.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long stops.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often a Lease is renewed, and looked at.
const RETRY: Duration = Duration::from_secs(2);
/// How long giving it up may take at the end.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// Which Lease, and who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name: one a role.
    pub name: String,
    /// Who wants it: one a process.
    pub holder: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Found {
    metadata: Meta,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    resource_version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<u64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<u64>,
}

impl Lease {
    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    /// Waits until it is held. Since when, at least: what the server stamps and others see is later than that.
    pub(crate) async fn acquire(&self, api: &Api) -> Instant {
        let mut seen: Option<(Spec, Instant)> = None;
        loop {
            let begun = Instant::now();
            match tokio::time::timeout(RENEW_WITHIN, self.attempt(api, &mut seen)).await {
                Ok(Ok(true)) => {
                    tracing::info!(lease = self.name, holder = self.holder, "leads");
                    return begun;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "cannot ask for the lease"),
                Err(_) => tracing::warn!(lease = self.name, "asking for the lease took too long"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews what is held since `renewed`, and returns once that was not possible for too long or somebody else holds it.
    pub(crate) async fn keep(&self, api: &Api, mut renewed: Instant) {
        loop {
            tokio::time::sleep(RETRY).await;
            let left = RENEW_WITHIN.saturating_sub(renewed.elapsed());
            // From when it was asked: an answer may come long after others saw what was written.
            let begun = Instant::now();
            match tokio::time::timeout(left, self.renew(api)).await {
                Ok(Ok(true)) => renewed = begun,
                Ok(Ok(false)) => break,
                Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "cannot renew the lease"),
                Err(_) => break,
            }
            if renewed.elapsed() >= RENEW_WITHIN {
                break;
            }
        }
        tracing::error!(lease = self.name, "the lease is lost: another may lead");
    }

    /// Gives it up, so that another need not wait for its end.
    pub(crate) async fn release(&self, api: &Api) {
        let giving_up = async {
            let found = self.get(api).await?;
            if found.spec.holder_identity.as_deref() != Some(&self.holder) {
                return Ok(());
            }
            let spec = Spec { holder_identity: None, lease_duration_seconds: Some(1), ..found.spec };
            self.put(api, &found.metadata, spec).await
        };
        match tokio::time::timeout(RELEASE_WITHIN, giving_up).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "cannot give the lease up; it ends by itself"),
            Err(_) => tracing::warn!(lease = self.name, "giving the lease up took too long; it ends by itself"),
        }
    }

    async fn get(&self, api: &Api) -> Result<Found, ApiError> {
        api.send(Method::GET, &self.path(), None).await
    }

    async fn put(&self, api: &Api, meta: &Meta, spec: Spec) -> Result<(), ApiError> {
        let body = self.body(Some(&meta.resource_version), &spec);
        let _written: Found = api.send(Method::PUT, &self.path(), Some(("application/json", &body))).await?;
        Ok(())
    }

    fn body(&self, version: Option<&str>, spec: &Spec) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": self.namespace, "name": self.name, "resourceVersion": version},
            "spec": {
                "holderIdentity": spec.holder_identity, "leaseDurationSeconds": spec.lease_duration_seconds,
                "acquireTime": spec.acquire_time, "renewTime": spec.renew_time,
                "leaseTransitions": spec.lease_transitions,
            },
        })
    }

    /// What the Lease says once it is ours.
    fn ours(&self, before: &Spec) -> Spec {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let again = before.holder_identity.as_deref() == Some(&self.holder);
        let transitions = before.lease_transitions.unwrap_or_default() + u64::from(!again);
        Spec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(DURATION.as_secs()),
            acquire_time: if again { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(transitions),
        }
    }

    /// Takes it, if it is free. Whether it is held now.
    async fn attempt(&self, api: &Api, seen: &mut Option<(Spec, Instant)>) -> Result<bool, ApiError> {
        let found = match self.get(api).await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => {
                // Nobody held it before.
                let first = Spec { lease_transitions: Some(0), ..self.ours(&Spec::default()) };
                let body = self.body(None, &first);
                let made: Result<Found, ApiError> =
                    api.send(Method::POST, &self.collection(), Some(("application/json", &body))).await;
                return took(made.map(drop));
            }
            Err(error) => return Err(error),
        };
        if seen.as_ref().is_none_or(|(spec, _)| *spec != found.spec) {
            *seen = Some((found.spec.clone(), Instant::now()));
        }
        let unchanged = seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let lasts = Duration::from_secs(found.spec.lease_duration_seconds.unwrap_or(DURATION.as_secs()));
        let holder = found.spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.holder && unchanged < lasts {
            return Ok(false);
        }
        took(self.put(api, &found.metadata, self.ours(&found.spec)).await)
    }

    /// Whether it is still ours.
    async fn renew(&self, api: &Api) -> Result<bool, ApiError> {
        let found = self.get(api).await?;
        if found.spec.holder_identity.as_deref() != Some(&self.holder) {
            return Ok(false);
        }
        took(self.put(api, &found.metadata, self.ours(&found.spec)).await)
    }
}

/// Another was faster: no error.
fn took(written: Result<(), ApiError>) -> Result<bool, ApiError> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}
