//! Who may send events, where senders are to say who they are: whoever's token the API server knows, and policies let.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use knoll_bounds::Cache;
use knoll_broker::{
    Authorize, Denied,
    topology::access::{Access, Allowed, Guard},
};
use knoll_client::Client;
use knoll_event::{Event, limits::MOST_WORK};
use serde_json::json;
use tokio::{task::yield_now, time::Instant};

use crate::components::typed::post;

/// How long it is remembered whose a token is: a token that is revoked is taken no longer than this.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most tokens that are remembered, and one part in so many of them for the accounts of one namespace.
const MOST: usize = 4096;
const PARTS: usize = 4;
/// What names of ServiceAccounts begin with.
const ACCOUNTS: &str = "system:serviceaccount:";
/// Longest token that is looked at.
const LONGEST: usize = 16 << 10;

/// Work of policies' filters for the events of one message, counted as [`MOST_WORK`] counts it.
const MOST_WORK_OF_ALL: usize = 16 * MOST_WORK;
/// The same after which others get the thread: some milliseconds, what the last filter takes among them.
const AT_ONCE: usize = 2 * MOST_WORK;

/// Where the API server is asked whose a token is.
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Whose tokens are, by token and audience, and until when that is remembered.
type Known = Mutex<Cache<Box<str>, (Box<str>, Box<str>), (Arc<str>, Instant)>>;

fn nobody_known() -> Known {
    Mutex::new(Cache::new(MOST, PARTS))
}

/// Lets senders in by what the API server says of their tokens.
pub(super) fn authorize(client: Client) -> Authorize {
    let known: Arc<Known> = Arc::new(nobody_known());
    Arc::new(move |guard, headers, events| {
        let (client, known) = (client.clone(), known.clone());
        Box::pin(async move {
            if matches!(guard.access(), Access::Open) {
                return Ok(());
            }
            let subject = subject(client, &known, &guard, &headers).await?;
            let allowed = guard.access().of(&subject, guard.namespace());
            all(allowed, &events, &subject).await
        })
    })
}

/// Lets a sender send these events, if it may send all of them, or ask what became of some, if it may send any. Others get
/// the thread in between.
async fn all(allowed: Allowed<'_>, events: &[Event], subject: &str) -> Result<(), Denied> {
    let forbidden = |why: String| Err(denied(StatusCode::FORBIDDEN, why));
    if events.is_empty() && matches!(allowed, Allowed::Nothing) {
        return forbidden(format!("{subject} may not send here, nor ask"));
    }
    let (mut done, mut left) = (0, AT_ONCE);
    for event in events {
        let (is_allowed, work) = allowed.has(event);
        if !is_allowed {
            let (kind, id) = (event.kind(), event.id());
            return forbidden(format!("{subject} may not send the event {id} of type {kind} here"));
        }
        done += work;
        if done > MOST_WORK_OF_ALL {
            let why = "the filter of the EventPolicy takes more work for so many events than it may";
            return forbidden(format!("{why}: make it simpler, or send fewer at a time"));
        }
        left = left.saturating_sub(work);
        if left == 0 {
            left = AT_ONCE;
            yield_now().await;
        }
    }
    Ok(())
}

async fn subject(client: Client, known: &Known, guard: &Guard, headers: &HeaderMap) -> Result<Arc<str>, Denied> {
    let token = bearer(headers).ok_or_else(|| {
        let whom = guard.audience().unwrap_or("it");
        let why = format!("senders say who they are: Authorization: Bearer with a token made out to {whom}");
        denied(StatusCode::UNAUTHORIZED, why)
    })?;
    // Who has a token may come again once it is.
    let unknown =
        || denied(StatusCode::INTERNAL_SERVER_ERROR, "it is not known yet for whom tokens are to be made out");
    let audience = guard.audience().ok_or_else(unknown)?;
    let key = (token.into(), audience.into());
    let now = Instant::now();
    if let Some((subject, until)) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
        && *until > now
    {
        return Ok(subject.clone());
    }
    let subject = review(client, token, audience).await?;
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.keep(whose(&subject).into(), key, (subject.clone(), now + REMEMBERED));
    Ok(subject)
}

/// Whose part of what is remembered a subject has: that of its namespace, where it is a ServiceAccount.
fn whose(subject: &str) -> &str {
    subject
        .strip_prefix(ACCOUNTS)
        .and_then(|account| account.split_once(':'))
        .map_or(subject, |(namespace, _)| namespace)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok().filter(|value| value.len() <= LONGEST)?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

async fn review(client: Client, token: &str, audience: &str) -> Result<Arc<str>, Denied> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]}});
    let reviewed = post(&client, REVIEWS, &review).await;
    let reviewed = reviewed.map_err(|error| {
        tracing::warn!(%error, "a sender's token cannot be looked at");
        denied(StatusCode::INTERNAL_SERVER_ERROR, "the token cannot be looked at now")
    })?;
    let status = &reviewed["status"];
    let is_ours = status["audiences"].as_array().into_iter().flatten().any(|accepted| accepted == audience);
    let subject = status["user"]["username"].as_str().filter(|_| status["authenticated"] == true && is_ours);
    subject.map(Into::into).ok_or_else(|| {
        denied(StatusCode::UNAUTHORIZED, format!("the token is not valid, or not made out to {audience}"))
    })
}

fn denied(status: StatusCode, reason: impl Into<String>) -> Denied {
    Denied { status, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use knoll_event::filter::Filter;

    use super::*;

    fn events(count: usize, subject: &str) -> Vec<Event> {
        let mut event = Event::new("1", "/s", "t").expect("an event");
        event.set("subject", subject).expect("a subject");
        vec![event; count]
    }

    #[tokio::test]
    async fn filters_of_policies_let_others_work_and_are_bounded_over_a_batch() {
        let long = "a".repeat(MOST_WORK / 4);
        let filter = Filter::suffix([("subject", &*long)]);
        let (verdict, work) = filter.verdict_and_work(&events(1, &long)[0]);
        assert!(verdict.delivers() && work > 0);
        let counted = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let ticks = counted.clone();
        let ticking = tokio::spawn(async move {
            loop {
                ticks.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                yield_now().await;
            }
        });
        let most = MOST_WORK_OF_ALL / work;
        assert_eq!(all(Allowed::Those(&filter), &events(most, &long), "me").await, Ok(()));
        assert!(counted.load(std::sync::atomic::Ordering::SeqCst) >= MOST_WORK_OF_ALL / AT_ONCE / 2);
        let refused = all(Allowed::Those(&filter), &events(most + 1, &long), "me").await;
        assert_eq!(refused.map_err(|denied| denied.status), Err(StatusCode::FORBIDDEN));
        ticking.abort();
    }

    #[tokio::test]
    async fn who_has_a_token_is_told_to_come_again_while_the_audience_is_not_known() {
        use knoll_broker::topology::access::Mode;
        let guard = Guard::new("ns".into()).for_those_of(Access::Otherwise(Mode::AllowAll));
        let client = Client::new(|_| async {
            Err::<http::Response<knoll_client::Body>, _>(std::io::Error::other("nobody is asked"))
        });
        let with_token = HeaderMap::from_iter([(AUTHORIZATION, "Bearer x".parse().expect("a header"))]);
        for (headers, status) in [(HeaderMap::new(), 401), (with_token, 500)] {
            let denied =
                subject(client.clone(), &nobody_known(), &guard, &headers).await.expect_err("nobody is let in");
            assert_eq!(denied.status.as_u16(), status);
        }
    }

    #[tokio::test]
    async fn the_senders_of_one_namespace_are_remembered_whatever_another_ones_accounts_are() {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        let reviews = Arc::<AtomicUsize>::default();
        let counted = reviews.clone();
        // A token is the name of its account.
        let client = Client::new(move |request| {
            counted.fetch_add(1, Relaxed);
            async move {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let mut review: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                review["status"] = serde_json::json!({"authenticated": true, "audiences": review["spec"]["audiences"],
                    "user": {"username": format!("{ACCOUNTS}{}", review["spec"]["token"].as_str().expect("a token"))}});
                Ok::<_, std::convert::Infallible>(http::Response::new(knoll_client::whole(review.to_string())))
            }
        });
        let (known, guard) = (nobody_known(), Guard::new("ns".into()).for_audience("a"));
        let ask = async |token: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"))]);
            subject(client.clone(), &known, &guard, &headers).await.expect("it is known")
        };
        let evil = |number: usize| {
            let (key, until) = ((number.to_string().into(), "a".into()), Instant::now() + REMEMBERED * 60);
            known.lock().unwrap().keep("evil".into(), key, ("evil".into(), until));
        };
        assert_eq!(whose(&ask("evil:one").await), "evil");
        (0..MOST).for_each(evil);
        ask("good:one").await;
        (MOST..2 * MOST).for_each(evil);
        let before = reviews.load(Relaxed);
        assert_eq!(whose(&ask("good:one").await), "good");
        assert_eq!(reviews.load(Relaxed), before);
    }

    #[tokio::test]
    async fn who_may_send_nothing_may_not_ask_what_became_of_it() {
        let filter = Filter::exact([("type", "other")]);
        let asked = [Allowed::All, Allowed::Those(&filter), Allowed::Nothing];
        let mut said = Vec::new();
        for allowed in asked {
            said.push(all(allowed, &[], "me").await.map_err(|denied| denied.status));
        }
        assert_eq!(said, [Ok(()), Ok(()), Err(StatusCode::FORBIDDEN)]);
    }

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
