//! Requests to RequestReplies, and answers to them that come over HTTP.

use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use knoll_event::{
    Event,
    mode::{self, Format},
};

use super::{Answer, Bytes, Inner, empty, refusal, serve::Peer};
use crate::{
    request_reply::{Answered, CannotWait, Request},
    topology::{RequestReply, Topology},
};

impl Inner {
    /// Puts a request into its Broker. Who posts it must be let in there. It waits for its answer from now on.
    pub(super) async fn request(
        &self,
        of: &RequestReply,
        (mut event, format): (Event, Format),
        (headers, beside): (&HeaderMap, HeaderMap),
        topology: &Topology,
    ) -> Result<Request, Answer> {
        let gone = || refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("its broker {} is not there", of.broker.name));
        let into = topology.get(&of.broker).ok_or_else(gone)?.clone();
        self.sinks.authorized(into.guard(), headers, std::slice::from_ref(&event)).await?;
        let request = self.waiting.begin(of, &mut event).map_err(|error| match error {
            CannotWait::TooMany => self.busy(&error.to_string()),
            CannotWait::Invalid(_) => refusal(StatusCode::BAD_REQUEST, error),
            CannotWait::Seal => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
        })?;
        self.take(&into, vec![(event, format)], beside).await?;
        Ok(request)
    }

    /// The event that answers a request; nothing, and success all the same, when none came in time.
    pub(super) async fn answer_to(
        &self,
        of: &RequestReply,
        request: Request,
        peer: Peer,
    ) -> Result<Response<Full<Bytes>>, Answer> {
        let mut response = empty(StatusCode::OK);
        if let Some(event) = request.answered(of).await {
            let body = mode::write(&event, Format::Binary, response.headers_mut());
            *response.body_mut() = Full::from(self.counted(body, peer).await?);
        }
        Ok(response)
    }

    /// Takes an event that says that it is an answer.
    pub(super) fn reply(&self, of: &RequestReply, event: Event) -> Result<Response<Full<Bytes>>, Answer> {
        let has_attribute = event.attribute(&of.reply_attribute).is_some();
        match self.waiting.answer(of, event) {
            Answered::Now | Answered::Late => Ok(empty(StatusCode::ACCEPTED)),
            Answered::NotOurs if has_attribute => {
                let why = format!("{} is no correlation id of this RequestReply", of.reply_attribute);
                Err(refusal(StatusCode::BAD_REQUEST, why))
            }
            Answered::NotOurs => {
                let why = format!("an answer has the correlation id of its request as {}", of.reply_attribute);
                Err(refusal(StatusCode::BAD_REQUEST, why))
            }
        }
    }
}
