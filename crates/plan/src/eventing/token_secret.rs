//! The token that containers send to a sink that asks who sends: of a SinkBinding's ServiceAccount, in a Secret that is mounted
//! into them.
//!
//! The API server issues it ([`Want::IssueToken`]); when it is due is decided here, by what the Secret says of the token.

use std::{collections::BTreeMap, time::Duration};

use knoll_api::{
    Key, Resource, Timestamp,
    k8s_openapi::{ByteString, api::core::v1::Secret},
    names,
    sources::SinkBinding,
};

use super::identity::LABEL;
use crate::{
    Plan, Want, World,
    children::{child_of, map},
};

/// What the Secret is called after its binding.
const SUFFIX: &str = "-oidc-token";
/// The Secret's entry, and so the file.
const TOKEN: &str = "token";
/// Annotation: when the token ends.
const ENDS: &str = "knoll.dev/token-ends";
/// Annotation: whom it is made out to.
const AUDIENCE: &str = "knoll.dev/token-audience";
/// Annotation: the uid of the ServiceAccount whose it is. Of one that is made again under its name it is not.
const ACCOUNT: &str = "knoll.dev/token-account";
/// A token is made anew when it holds no longer than this.
const LEFT: Duration = Duration::from_secs(600);
/// How far clocks may differ.
const SLACK: Duration = Duration::from_secs(60);

/// A Secret that is to hold a token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSecret {
    /// The ServiceAccount whose token it is.
    pub account: Key,
    /// Whom it is made out to.
    pub audience: String,
    /// The account's uid.
    uid: String,
    secret: Secret,
}

impl TokenSecret {
    /// How long a token holds, seconds; upstream's.
    pub const SECONDS: u32 = 3600;

    /// The Secret with this token, which ends then: to be created or, where it has a resourceVersion, replaced.
    pub fn with(self, token: String, ends: Timestamp) -> Secret {
        let mut secret = self.secret;
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(ENDS.to_owned(), ends.to_string());
        annotations.insert(AUDIENCE.to_owned(), self.audience);
        annotations.insert(ACCOUNT.to_owned(), self.uid);
        secret.data = Some(BTreeMap::from([(TOKEN.to_owned(), ByteString(token.into_bytes()))]));
        secret
    }
}

/// Sees to it that a binding's Secret holds a token of this ServiceAccount for this audience, and for a while yet. Its name
/// when it holds one; nothing while that is issued, or there is no such account.
///
/// # Errors
/// When the Secret is another's; in words for the user.
pub(super) fn settle(
    world: &World,
    binding: &SinkBinding,
    account: String,
    audience: &str,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<Option<String>, String> {
    let key = secret_of(binding);
    let existing = world.secrets.get(&key);
    if existing.as_ref().is_some_and(|secret| !secret.is_controlled_by(binding)) {
        let (name, binding) = (&key.name, binding.name());
        return Err(format!(
            "Secret {name} is not of SinkBinding {binding}: delete it, or give the binding another name"
        ));
    }
    let account = key.sibling(account);
    let Some(uid) = world.service_accounts.get(&account).and_then(|account| account.metadata.uid.clone()) else {
        return Ok(None);
    };
    let left = existing.as_ref().and_then(|secret| left(secret, audience, &uid, now));
    if let Some(due) = left.and_then(|left| left.checked_sub(LEFT)).filter(|due| !due.is_zero()) {
        plan.recheck_after(due);
    } else {
        let metadata = child_of(binding, key.name.clone(), map([(LABEL, "enabled")]), BTreeMap::new());
        let mut secret = Secret { metadata, ..Secret::default() };
        secret.metadata.resource_version = existing.and_then(|secret| secret.metadata.resource_version.clone());
        let audience = audience.to_owned();
        let order = TokenSecret { account, audience, uid, secret };
        plan.wants.push(Want::IssueToken(Box::new(order)));
    }
    Ok(left.map(|_| key.name))
}

/// Removes a binding's Secret, which nobody needs any more.
pub(super) fn remove(world: &World, binding: &SinkBinding, plan: &mut Plan) {
    let existing = world.secrets.get(&secret_of(binding));
    existing.iter().filter(|secret| secret.is_controlled_by(binding)).for_each(|secret| plan.delete(secret.as_ref()));
}

fn secret_of(binding: &SinkBinding) -> Key {
    binding.key().sibling(names::child(binding.name(), SUFFIX))
}

/// How long the token holds; nothing when there is none for this audience, of the account of this uid.
fn left(secret: &Secret, audience: &str, account: &str, now: Timestamp) -> Option<Duration> {
    let ends: Timestamp = secret.annotation(ENDS)?.parse().ok()?;
    let left = Duration::try_from(ends.duration_since(now)).ok()?;
    let holds = secret.data.as_ref().is_some_and(|data| data.contains_key(TOKEN));
    // A clock that was set back makes a token old, not young.
    let longest = Duration::from_secs(TokenSecret::SECONDS.into()) + SLACK;
    let is_of = secret.annotation(AUDIENCE) == Some(audience) && secret.annotation(ACCOUNT) == Some(account);
    (holds && left <= longest && is_of).then_some(left)
}
