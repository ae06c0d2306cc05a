//! The certificates that Eventing presents over https, its Services and the pods of EventTransforms: made by the instance's
//! own authority while the feature `transport-encryption` asks for them, and made anew long before they end. They live in
//! Secrets, where controllers read whom senders are to trust, and the data plane and the pods what they present. A Secret
//! that cannot be written holds up none of the others.

mod issuer;
mod known;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use knoll_api::{
    Key, Kind,
    config::eventing::{EventingFeatures, TransportEncryption},
};
use knoll_apiserver::auth::Pki;
use knoll_broker::topology::Names;
use knoll_client::{
    Client, Error,
    watch::{Collection, Seen, follow},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use self::{
    issuer::{Issuer, Wanted},
    known::{Due, Known},
};
use crate::{
    components::typed::{create, find, replace},
    failure::chain,
    supervise::Tasks,
};

/// How often is looked whether one is to be made anew, though nothing changed.
const EVERY: Duration = Duration::from_secs(600);
/// After one could not be written.
const AGAIN: Duration = Duration::from_secs(5);
/// The ConfigMap of the feature.
const FEATURES: &str = "config-features";

/// Keeps them valid until the tasks are told to stop.
pub(super) fn keep(tasks: &mut Tasks, pki: Arc<Pki>, client: Client, names: &Names) {
    let (stop, names, encrypts) = (tasks.stop(), names.clone(), Arc::<AtomicBool>::default());
    tasks.restartable("certificates of Eventing", move || {
        let issuer = Issuer { pki: pki.clone(), names: names.clone() };
        let (keeper, stop) = (Keeper::new(issuer, client.clone(), encrypts.clone()), stop.clone());
        async move {
            tokio::select! {
                () = stop.wait() => Ok(()),
                ended = keeper.run() => ended,
            }
        }
    });
}

struct Keeper {
    issuer: Issuer,
    client: Client,
    known: Known,
    /// What the feature said when it was last there.
    encrypts: Arc<AtomicBool>,
}

/// Why a Secret is not as it is to be.
enum Failure {
    /// It is refused for its own sake, and is once more until something changes.
    Refused(String),
    /// Nothing can be read or written now.
    Passing(String),
}

/// What is not as it is to be.
#[derive(Default)]
struct Failed {
    /// Why, as it was told.
    refused: BTreeMap<Key, String>,
    /// The same of what passes.
    passing: Option<String>,
    /// To be tried again, though nothing changes.
    again: BTreeSet<Key>,
    /// When.
    at: Option<Instant>,
}

impl Keeper {
    fn new(issuer: Issuer, client: Client, encrypts: Arc<AtomicBool>) -> Self {
        let known = Known::new(&issuer.names.system_namespace);
        Self { issuer, client, known, encrypts }
    }

    /// Looks at a Secret when it, or who it is for, is new, changed or gone, and at all of them at the start, when the feature
    /// changes, and now and then.
    async fn run(self) -> Result<(), String> {
        let (into, dues) = mpsc::channel(1);
        let [features, secrets, transforms] = self.followed();
        let now_and_then = async {
            loop {
                sleep(EVERY).await;
                if into.send(Due::All).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.attend(dues) => {}
            () = now_and_then => {}
            () = follow(&self.client, &features, &into, is_change) => {}
            () = follow(&self.client, &secrets, &into, |seen| self.known.saw_secret(seen)) => {}
            () = follow(&self.client, &transforms, &into, |seen| self.known.saw_transform(seen)) => {}
        }
        Err("the feature, the Secrets and the EventTransforms are not followed any more".to_owned())
    }

    /// The feature, the Secrets and the transforms. Secrets of another type were made by others, and are used as they are.
    fn followed(&self) -> [Collection; 3] {
        let of = |kind: Kind, namespace: Option<&str>, field_selector: &str| Collection {
            path: kind.collection_path(namespace),
            field_selector: field_selector.to_owned(),
            ..Collection::default()
        };
        [
            of(Kind::ConfigMap, Some(&self.issuer.names.system_namespace), &format!("metadata.name={FEATURES}")),
            of(Kind::Secret, None, "type=kubernetes.io/tls"),
            of(Kind::EventTransform, None, ""),
        ]
    }

    async fn attend(&self, mut dues: mpsc::Receiver<Due>) {
        let mut failed = Failed::default();
        loop {
            let again = failed.at;
            let secrets = tokio::select! {
                due = dues.recv() => match due {
                    Some(due) => self.known.secrets(due),
                    None => return,
                },
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => failed.due(),
            };
            self.look(&secrets, &mut failed, Timestamp::now()).await;
        }
    }

    /// Makes what is missing and what is due of these.
    async fn look(&self, secrets: &[Key], failed: &mut Failed, now: Timestamp) {
        let mut passing = None;
        match self.encrypts().await {
            Ok(true) => {
                for secret in secrets {
                    let settled = match self.known.wanted(secret) {
                        Some(wanted) => self.settled(&wanted, now).await,
                        None => Ok(()),
                    };
                    passing = failed.note(secret, settled).or(passing);
                }
            }
            Ok(false) => failed.refused.clear(),
            Err(error) => {
                let why = format!("{FEATURES}: {}", said(&error));
                for secret in secrets {
                    passing = failed.note(secret, Err(Failure::Passing(why.clone())));
                }
            }
        }
        failed.tell(passing);
    }

    /// Whether the feature asks for https. While its map is gone or cannot be understood it says what it said, as controllers
    /// have it: what it carried is not to go with it.
    async fn encrypts(&self) -> Result<bool, Error> {
        let map: Option<ConfigMap> = find(&self.client, &self.issuer.names.system_namespace, FEATURES).await?;
        let data = map.map(|map| map.data.unwrap_or_default());
        if let Some(Ok(features)) = data.map(|data| EventingFeatures::parse(&data)) {
            self.encrypts.store(features.transport_encryption != TransportEncryption::Disabled, Relaxed);
        }
        Ok(self.encrypts.load(Relaxed))
    }

    /// Settles it; a panic costs this one.
    async fn settled(&self, wanted: &Wanted, now: Timestamp) -> Result<(), Failure> {
        let settled = knoll_faults::caught(Box::pin(self.settle(wanted, now))).await;
        settled.unwrap_or_else(|panic| Err(Failure::Refused(format!("a panic: {panic}"))))
    }

    async fn settle(&self, wanted: &Wanted, now: Timestamp) -> Result<(), Failure> {
        let Key { namespace, name } = &wanted.secret;
        let held: Option<Secret> =
            find(&self.client, namespace, name).await.map_err(|error| failure(wanted, &error))?;
        let made = self.issuer.wanted(held.as_ref(), wanted, now).map_err(|error| Failure::Refused(chain(&error)))?;
        let Some(made) = made else { return Ok(()) };
        let written = match held {
            None => create(&self.client, namespace, &made).await,
            Some(_) => replace(&self.client, namespace, &made).await,
        };
        written.map_err(|error| failure(wanted, &error))?;
        tracing::info!(secret = %wanted.secret, service = wanted.service, "a Service has a new certificate");
        Ok(())
    }
}

impl Failed {
    /// What is to be tried again by now.
    fn due(&mut self) -> Vec<Key> {
        self.at = None;
        std::mem::take(&mut self.again).into_iter().collect()
    }

    /// Notes what became of a Secret. What passes is returned: it is the same for many, and told once for all.
    fn note(&mut self, secret: &Key, settled: Result<(), Failure>) -> Option<String> {
        let refused = self.refused.remove(secret);
        self.again.remove(secret);
        match settled {
            Ok(()) => None,
            Err(Failure::Refused(why)) => {
                if refused.as_ref() != Some(&why) {
                    tracing::warn!(%secret, error = why, "a certificate is not written; it is looked at again when something changes");
                }
                self.refused.insert(secret.clone(), why);
                None
            }
            Err(Failure::Passing(why)) => {
                self.again.insert(secret.clone());
                self.at.get_or_insert_with(|| Instant::now() + AGAIN);
                Some(why)
            }
        }
    }

    /// Tells what does not work now, once until it is something else.
    fn tell(&mut self, passing: Option<String>) {
        if let Some(why) = passing.as_ref().filter(|why| self.passing.as_ref() != Some(why)) {
            tracing::error!(
                error = why,
                secrets = self.again.len(),
                "certificates of Eventing cannot be seen to; they are again"
            );
        }
        if passing.is_some() || self.again.is_empty() {
            self.passing = passing;
        }
    }
}

/// What a refusal means for a Secret. Of Services there are few, and all of Eventing waits for theirs: whatever keeps one from
/// being written, such as a namespace that is not there yet, may pass. A tenant's waits until something changes: its namespace
/// goes, or has no room, or there is a Secret that takes no change.
fn failure(wanted: &Wanted, error: &Error) -> Failure {
    match error {
        Error::Api(refused) if wanted.owner.is_some() && is_its_own(refused.code) => {
            Failure::Refused(refused.message.clone())
        }
        error => Failure::Passing(format!("{}: {}", wanted.secret, said(error))),
    }
}

fn said(error: &Error) -> String {
    match error {
        Error::Api(refused) => refused.message.clone(),
        error => chain(error),
    }
}

/// Whether a refusal is about the one object, not the server or who asks too often.
fn is_its_own(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 408 | 429)
}

/// Whether something of the feature may be different.
fn is_change(seen: Seen) -> Option<Due> {
    let is_change = matches!(seen, Seen::Listed(_) | Seen::Added(_) | Seen::Modified(_) | Seen::Gone(_));
    is_change.then_some(Due::All)
}

#[cfg(test)]
mod tests;
