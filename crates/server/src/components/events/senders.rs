//! Who may send events, where senders are to say who they are: whoever's token the API server knows, and policies let.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use knoll_broker::{
    Authorize, Denied,
    topology::access::{Access, Guard},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::Instant;

/// How long it is remembered whose a token is: a token that is revoked is taken no longer than this.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most tokens that are remembered.
const MOST: usize = 4096;
/// Longest token that is looked at.
const LONGEST: usize = 16 << 10;

/// Whose tokens are, by token and audience, and until when that is remembered.
type Known = Mutex<HashMap<(Box<str>, Box<str>), (Arc<str>, Instant)>>;

/// Lets senders in by what the API server says of their tokens.
pub(super) fn authorize(client: Client) -> Authorize {
    let known: Arc<Known> = Arc::default();
    Arc::new(move |guard, headers, events| {
        let (client, known) = (client.clone(), known.clone());
        Box::pin(async move {
            if matches!(guard.access(), Access::Open) {
                return Ok(());
            }
            let subject = subject(client, &known, &guard, &headers).await?;
            let (access, namespace) = (guard.access(), guard.namespace());
            if events.is_empty() && !access.admits(&subject, namespace) {
                return Err(denied(StatusCode::FORBIDDEN, format!("{subject} may not send here, nor ask")));
            }
            let refused = events.iter().find(|event| !access.allows(&subject, namespace, event));
            let Some(refused) = refused else { return Ok(()) };
            let (kind, id) = (refused.kind(), refused.id());
            Err(denied(StatusCode::FORBIDDEN, format!("{subject} may not send the event {id} of type {kind} here")))
        })
    })
}

async fn subject(client: Client, known: &Known, guard: &Guard, headers: &HeaderMap) -> Result<Arc<str>, Denied> {
    let unauthorized = |why: &str| denied(StatusCode::UNAUTHORIZED, why);
    let audience =
        guard.audience().ok_or_else(|| unauthorized("it is not known yet for whom tokens are to be made out"))?;
    let token = bearer(headers).ok_or_else(|| {
        unauthorized(&format!("senders say who they are: Authorization: Bearer with a token made out to {audience}"))
    })?;
    let key = (token.into(), audience.into());
    let now = Instant::now();
    if let Some((subject, until)) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
        && *until > now
    {
        return Ok(subject.clone());
    }
    let subject = review(client, token, audience).await?;
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MOST {
        known.retain(|_, (_, until)| *until > now);
    }
    if known.len() < MOST {
        known.insert(key, (subject.clone(), now + REMEMBERED));
    }
    Ok(subject)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok().filter(|value| value.len() <= LONGEST)?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

async fn review(client: Client, token: &str, audience: &str) -> Result<Arc<str>, Denied> {
    let spec = TokenReviewSpec { audiences: Some(vec![audience.to_owned()]), token: Some(token.to_owned()) };
    let review = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
    let reviewed = Api::<TokenReview>::all(client).create(&PostParams::default(), &review).await;
    let reviewed = reviewed.map_err(|error| {
        tracing::warn!(%error, "a sender's token cannot be looked at");
        denied(StatusCode::INTERNAL_SERVER_ERROR, "the token cannot be looked at now")
    })?;
    let status = reviewed.status.unwrap_or_default();
    let is_ours = status.audiences.iter().flatten().any(|accepted| accepted == audience);
    let subject = status.user.and_then(|user| user.username).filter(|_| status.authenticated == Some(true) && is_ours);
    subject.map(Into::into).ok_or_else(|| {
        denied(StatusCode::UNAUTHORIZED, format!("the token is not valid, or not made out to {audience}"))
    })
}

fn denied(status: StatusCode, reason: impl Into<String>) -> Denied {
    Denied { status, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_stands_behind_bearer() {
        for (value, token) in
            [("Bearer x", Some("x")), ("bearer  x ", Some("x")), ("Basic x", None), ("Bearer ", None), ("x", None)]
        {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a header"))]);
            assert_eq!(bearer(&headers), token, "{value}");
        }
    }
}
