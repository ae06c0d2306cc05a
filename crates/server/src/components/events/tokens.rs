//! Tokens for subscribers that ask who sends: of the ServiceAccount of a Trigger or Subscription, made out to the subscriber.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, header::InvalidHeaderValue};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use knoll_broker::Tokens;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::Instant;

/// How long a token holds, seconds; upstream's.
const LIFE: i64 = 3600;
/// A token is made anew when it holds no longer than this.
const LEFT: Duration = Duration::from_secs(5 * 60);
/// Most tokens that are kept.
const MOST: usize = 10_000;

/// Audience, namespace and ServiceAccount.
type Whose = (Arc<str>, Arc<str>, Arc<str>);
/// Held while it is asked for, so that many who want one ask once.
type Kept = Arc<tokio::sync::Mutex<Option<(HeaderValue, Instant)>>>;

/// Makes tokens by asking the API server for them, and keeps them while they hold.
pub(in crate::components) fn tokens(client: Client) -> Tokens {
    let kept: Arc<Mutex<HashMap<Whose, Kept>>> = Arc::default();
    Arc::new(move |audience, namespace, account| {
        let (client, place) = (client.clone(), place(&kept, (audience.clone(), namespace.clone(), account.clone())));
        Box::pin(async move {
            let mut held = place.lock().await;
            if let Some((token, until)) = &*held
                && *until > Instant::now() + LEFT
            {
                return Ok(token.clone());
            }
            let until = Instant::now() + Duration::from_secs(LIFE.unsigned_abs());
            let token = ask(client, &audience, &namespace, &account).await?;
            *held = Some((token.clone(), until));
            Ok(token)
        })
    })
}

fn place(kept: &Mutex<HashMap<Whose, Kept>>, whose: Whose) -> Kept {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= MOST && !kept.contains_key(&whose) {
        // They are made again when somebody wants them.
        kept.clear();
    }
    kept.entry(whose).or_default().clone()
}

async fn ask(client: Client, audience: &str, namespace: &str, account: &str) -> Result<HeaderValue, String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let spec = TokenRequestSpec {
        audiences: vec![audience.to_owned()],
        expiration_seconds: Some(LIFE),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { metadata: ObjectMeta::default(), spec, status: None };
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let made = made.map_err(|e| format!("no token of ServiceAccount {namespace}/{account}: {e}"))?;
    let token = made.status.map(|status| status.token).unwrap_or_default();
    let value: Result<HeaderValue, InvalidHeaderValue> = format!("Bearer {token}").try_into();
    value.map_err(|e| format!("the token of ServiceAccount {namespace}/{account} cannot be sent: {e}"))
}
