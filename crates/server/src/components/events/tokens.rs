//! Tokens for subscribers that ask who sends: of the ServiceAccount of a Trigger or Subscription, made out to the subscriber.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, header::InvalidHeaderValue};
use jiff::Timestamp;
use knoll_api::{Key, Kind};
use knoll_bounds::Cache;
use knoll_broker::Tokens;
use knoll_client::{
    Client,
    token::{self, Issued},
};
use serde::Deserialize as _;
use tokio::time::Instant;

use crate::components::typed::post;

/// How long a token holds; upstream's.
const LIFE: Duration = Duration::from_secs(SECONDS as u64);
const SECONDS: i64 = 3600;
/// A token is made anew when it holds no longer than this.
const LEFT: Duration = Duration::from_secs(5 * 60);
/// Most tokens that are kept, and one part in so many of them for one namespace's.
const MOST: usize = 10_000;
const PARTS: usize = 4;

/// A token that was refused is made anew unless it is younger than this: then another one is refused as well.
const YOUNG: Duration = Duration::from_secs(10);

/// Audience, namespace and ServiceAccount.
type Whose = (Arc<str>, Arc<str>, Arc<str>);
/// Held while it is asked for, so that many who want one ask once.
type Kept = Arc<tokio::sync::Mutex<Option<Held>>>;
/// By namespace; what goes is made again when somebody wants it.
type All = Cache<Arc<str>, Whose, Kept>;

/// A moment by both clocks: one stands still while the machine sleeps, and the other may be set.
#[derive(Clone, Copy, Debug)]
struct Moment {
    monotonic: Instant,
    wall: Timestamp,
}

impl Moment {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: Timestamp::now() }
    }

    /// How much later this is, by the clock by which it is most.
    fn since(self, earlier: Self) -> Duration {
        let wall = Duration::try_from(self.wall.duration_since(earlier.wall)).unwrap_or_default();
        self.monotonic.saturating_duration_since(earlier.monotonic).max(wall)
    }
}

/// A token.
#[derive(Clone, Debug)]
struct Held {
    token: HeaderValue,
    made: Moment,
    /// How long it holds from then on.
    life: Duration,
}

impl Held {
    /// Whether it may be sent, one like `refused` not being taken.
    fn may_be_sent(&self, refused: Option<&HeaderValue>, now: Moment) -> bool {
        let age = now.since(self.made);
        let is_refused = refused == Some(&self.token) && age >= YOUNG;
        age + LEFT < self.life && !is_refused
    }
}

/// Makes tokens by asking the API server for them, and keeps them while they hold and are taken.
pub(in crate::components) fn tokens(client: Client) -> Tokens {
    let kept: Arc<Mutex<All>> = Arc::new(Mutex::new(Cache::new(MOST, PARTS)));
    Arc::new(move |audience, namespace, account, refused| {
        let (client, place) = (client.clone(), place(&kept, (audience.clone(), namespace.clone(), account.clone())));
        Box::pin(async move {
            let mut held = place.lock().await;
            let now = Moment::now();
            if let Some(held) = held.as_ref().filter(|held| held.may_be_sent(refused.as_ref(), now)) {
                return Ok(held.token.clone());
            }
            let (token, ends) = ask(client, &audience, &namespace, &account).await?;
            let life = Duration::try_from(ends.duration_since(now.wall)).unwrap_or_default();
            *held = Some(Held { token: token.clone(), made: now, life: life.min(LIFE) });
            Ok(token)
        })
    })
}

fn place(kept: &Mutex<All>, whose: Whose) -> Kept {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(place) = kept.get(&whose) {
        return place.clone();
    }
    let place = Kept::default();
    kept.keep(whose.1.clone(), whose, place.clone());
    place
}

/// A token, and when it ends.
async fn ask(
    client: Client,
    audience: &str,
    namespace: &str,
    account: &str,
) -> Result<(HeaderValue, Timestamp), String> {
    let request = token::request(audience, SECONDS);
    let path = Kind::ServiceAccount.object_path(&Key::new(namespace, account)) + "/token";
    let made = post(&client, &path, &request).await;
    let made = made.map_err(|e| format!("no token of ServiceAccount {namespace}/{account}: {e}"))?;
    let Issued { status } = Issued::deserialize(&made)
        .map_err(|e| format!("no token of ServiceAccount {namespace}/{account} was made: {e}"))?;
    let value: Result<HeaderValue, InvalidHeaderValue> = format!("Bearer {}", status.token).try_into();
    let value = value.map(|value| (value, status.expiration_timestamp));
    value.map_err(|e| format!("the token of ServiceAccount {namespace}/{account} cannot be sent: {e}"))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use http::Response;
    use jiff::SignedDuration;
    use knoll_client::whole;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_holds_no_longer_than_by_the_clock_that_went_on_most() {
        let made = Moment::now();
        let held = Held { token: HeaderValue::from_static("a"), made, life: LIFE };
        let later = |monotonic: u64, wall: i64| Moment {
            monotonic: made.monotonic + Duration::from_secs(monotonic),
            wall: made.wall + SignedDuration::from_secs(wall),
        };
        for (monotonic, wall, holds) in [
            (0, 0, true),
            (3299, 3299, true),
            (3300, 0, false),
            (60, 3300, false),
            (60, -86_400, true),
            (3300, -86_400, false),
        ] {
            assert_eq!(held.may_be_sent(None, later(monotonic, wall)), holds, "{monotonic} {wall}");
        }
        let refused = held.token.clone();
        for (seconds, other, may_be) in [(9, false, true), (10, false, false), (10, true, true)] {
            let refused = if other { HeaderValue::from_static("b") } else { refused.clone() };
            assert_eq!(held.may_be_sent(Some(&refused), later(seconds, 0)), may_be, "{seconds} {other}");
        }
    }

    /// An API server that makes numbered tokens which end so many seconds from now.
    fn fake(seconds: i64) -> (Client, Arc<AtomicUsize>) {
        let made = Arc::<AtomicUsize>::default();
        let counted = made.clone();
        let client = Client::new(move |_| {
            let number = counted.fetch_add(1, Relaxed);
            let ends = Timestamp::now() + SignedDuration::from_secs(seconds);
            let status = json!({"token": number.to_string(), "expirationTimestamp": ends.to_string()});
            let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
                "spec": {"audiences": ["a"]}, "status": status});
            async move { Ok::<_, Infallible>(Response::new(whole(request.to_string()))) }
        });
        (client, made)
    }

    #[test]
    fn tokens_of_one_namespace_leave_those_of_others_kept() {
        let kept = Mutex::new(Cache::new(MOST, PARTS));
        let of = |audience: &str, namespace: &str| place(&kept, (audience.into(), namespace.into(), "account".into()));
        let first = of("a", "good");
        (0..=MOST).for_each(|number| drop(of(&number.to_string(), "evil")));
        assert!(Arc::ptr_eq(&first, &of("a", "good")));
    }

    #[tokio::test]
    async fn a_token_is_asked_for_once_and_again_once_it_does_not_hold() {
        let (client, made) = fake(3600);
        let asked = tokens(client);
        let ask = |refused| asked("a".into(), "ns".into(), "account".into(), refused);
        let first = ask(None).await.expect("a token");
        assert_eq!(first, "Bearer 0");
        assert_eq!(ask(None).await.as_ref(), Ok(&first));
        assert_eq!(ask(Some(first.clone())).await.as_ref(), Ok(&first), "it is young");
        assert_eq!(made.load(Relaxed), 1);
        let (client, made) = fake(200);
        let asked = tokens(client);
        for number in 1..4 {
            asked("a".into(), "ns".into(), "account".into(), None).await.expect("a token");
            assert_eq!(made.load(Relaxed), number, "it ends soon, whatever was asked for");
        }
    }
}
