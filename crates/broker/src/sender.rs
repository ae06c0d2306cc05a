//! Sending an event that comes from no broker or channel, such as a source's: over the client that deliveries use, with its
//! connections, bounds, certificates and tokens; and to what is answered in this process without a connection, where each
//! namespace is a sender of its own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full};
use knoll_event::{
    Event,
    mode::{self, Format},
};
use tokio::sync::watch;

use crate::{
    Config, Hooks, Ingress, Tokens,
    client::{self, Answer, Client, Message, failure, timed_out, told},
    delivery::{
        Destination,
        retry::{Cause, Failure},
    },
};

/// Who sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The namespace, told by `Kn-Namespace`.
    pub namespace: Arc<str>,
    /// Its ServiceAccount that tokens are made for, where the destination asks for one.
    pub service_account: Option<Arc<str>>,
}

/// Sends single events in binary mode. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Sender {
    pub(crate) client: Arc<Client>,
    pub(crate) tokens: Option<Tokens>,
    here: Option<Here>,
}

/// What answers senders in this process, while something does.
pub type Here = watch::Receiver<Option<Ingress>>;

impl Sender {
    /// One with connections of its own, and look-ups of names and tokens that are bounded and kept on their own: a process needs
    /// one, which its [`DataPlane`](crate::DataPlane) delivers over as well ([`Hooks::sender`]). Of `config` the bounds of
    /// connections count, of `hooks` what finds, keeps from and is let in by whom is sent to, and of their transport whom it
    /// trusts.
    pub fn new(config: &Config, hooks: Hooks) -> Self {
        let Hooks { resolve, machine, tokens, transport, .. } = hooks;
        Self { client: Arc::new(Client::new(config, resolve, machine, transport)), tokens, here: None }
    }

    /// The same, over the same connections, which hands what goes to brokers, channels and sinks of this process over to `here`.
    /// Where that ends while it answers, the attempt has failed.
    pub fn beside(self, here: Here) -> Self {
        Self { here: Some(here), ..self }
    }

    /// Sends an event once, with a token where the destination has an audience. The status of success; what is answered
    /// besides is not looked at.
    ///
    /// # Errors
    /// When the answer is no success, or there is none within `timeout`.
    pub async fn send(
        &self,
        to: &Destination,
        event: &Event,
        origin: &Origin,
        timeout: Duration,
    ) -> Result<StatusCode, Failure> {
        let sending = self.send_until_taken(to, event, origin);
        let answer = tokio::time::timeout(timeout, sending).await.unwrap_or_else(|_| Err(timed_out(to, timeout)))?;
        if answer.status.is_success() {
            return Ok(answer.status);
        }
        Err(Failure { data: told(&answer.body), ..failure(to, Cause::Status(answer.status), String::new()) })
    }

    /// Sends, and once more with another token where that is not taken: it may have been revoked.
    async fn send_until_taken(&self, to: &Destination, event: &Event, origin: &Origin) -> Result<Answer, Failure> {
        let token = |refused| token(&self.tokens, to, &origin.namespace, origin.service_account.as_ref(), refused);
        let first = token(None).await?;
        let answer = self.send_with(to, event, origin, first.clone()).await?;
        if answer.status != StatusCode::UNAUTHORIZED || first.is_none() {
            return Ok(answer);
        }
        match token(first.clone()).await {
            Ok(another) if another != first => self.send_with(to, event, origin, another).await,
            Ok(_) | Err(_) => Ok(answer),
        }
    }

    async fn send_with(
        &self,
        to: &Destination,
        event: &Event,
        origin: &Origin,
        token: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let namespace = &origin.namespace;
        let mut headers: HeaderMap = token.map(|token| (AUTHORIZATION, token)).into_iter().collect();
        let body = mode::write(event, Format::Binary, &mut headers);
        let message = Message { headers, body, namespace, wants_reply: false, reads_reply: false };
        let mut here = self.here.clone();
        let answers = here.as_mut().and_then(|here| {
            let ingress = here.borrow_and_update().clone()?;
            ingress.is_at(&to.uri).then_some((ingress, here))
        });
        let Some((ingress, ended)) = answers else { return self.client.send(to, message).await };
        let request = client::request(to, message)?;
        tokio::select! {
            answer = Box::pin(handed_over(ingress, namespace.clone(), request)) => Ok(answer),
            _ = ended.changed() => {
                Err(failure(to, Cause::Transport, "what takes events ended before it answered".to_owned()))
            }
        }
    }
}

/// The answer of what is here.
async fn handed_over(ingress: Ingress, namespace: Arc<str>, request: Request<Full<Bytes>>) -> Answer {
    let (head, body) = ingress.answer_for(namespace, request).await.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_else(|never| match never {});
    Answer { status: head.status, headers: head.headers, body, room: None }
}

/// The `Authorization` of a request, where the destination has an audience: another than one that was refused, if one can be
/// made.
pub(crate) async fn token(
    tokens: &Option<Tokens>,
    to: &Destination,
    namespace: &Arc<str>,
    account: Option<&Arc<str>>,
    refused: Option<HeaderValue>,
) -> Result<Option<HeaderValue>, Failure> {
    let Some(audience) = &to.audience else { return Ok(None) };
    let made = match (tokens, account) {
        (Some(tokens), Some(account)) => tokens(audience.clone(), namespace.clone(), account.clone(), refused).await,
        _ => Err("there is no ServiceAccount to make a token for".to_owned()),
    };
    made.map(Some).map_err(|error| failure(to, Cause::Unsendable, format!("no token for {audience}: {error}")))
}
