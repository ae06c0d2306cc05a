//! Sending an event that comes from no broker or channel, such as a source's: over the client that deliveries use, with its
//! connections, bounds, certificates and tokens.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION};
use knoll_event::{Event, mode::Format};

use crate::{
    Config, Resolve, Tokens, Transport,
    client::{Client, Message, failure, told},
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
    client: Arc<Client>,
    tokens: Option<Tokens>,
}

impl Sender {
    /// One with connections of its own, for a process without a [`DataPlane`](crate::DataPlane); where there is one, it
    /// has a [sender](crate::DataPlane::sender). Of `config` the bounds of connections count, of `transport`
    /// whom it trusts.
    pub fn new(config: &Config, resolve: Resolve, tokens: Option<Tokens>, transport: Transport) -> Self {
        Self::over(Arc::new(Client::new(config, resolve, transport)), tokens)
    }

    pub(crate) fn over(client: Arc<Client>, tokens: Option<Tokens>) -> Self {
        Self { client, tokens }
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
        let mut headers = HeaderMap::new();
        let Origin { namespace, service_account } = origin;
        if let Some(audience) = &to.audience {
            let token = token(&self.tokens, to, audience, namespace, service_account.as_ref()).await?;
            headers.insert(AUTHORIZATION, token);
        }
        let message =
            Message { event, format: Format::Binary, headers, namespace, wants_reply: false, reads_reply: false };
        let answer = self.client.send(to, message, Some(timeout)).await?;
        if answer.status.is_success() {
            return Ok(answer.status);
        }
        Err(Failure { data: told(&answer.body), ..failure(to, Cause::Status(answer.status), String::new()) })
    }
}

/// The `Authorization` of a request to a destination with this audience.
pub(crate) async fn token(
    tokens: &Option<Tokens>,
    to: &Destination,
    audience: &Arc<str>,
    namespace: &Arc<str>,
    account: Option<&Arc<str>>,
) -> Result<HeaderValue, Failure> {
    let made = match (tokens, account) {
        (Some(tokens), Some(account)) => tokens(audience.clone(), namespace.clone(), account.clone()).await,
        _ => Err("there is no ServiceAccount to make a token for".to_owned()),
    };
    made.map_err(|error| failure(to, Cause::Unsendable, format!("no token for {audience}: {error}")))
}
