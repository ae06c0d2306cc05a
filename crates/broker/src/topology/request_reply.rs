//! RequestReplies in a snapshot: where requests over HTTP are answered by events.

use std::{sync::Arc, time::Duration};

use http::Uri;
use knoll_event::{cesql::Expression, filter::Filter};

use super::{Name, NotFound, Subscriber, Subscription, Topology};
use crate::delivery::Destination;

/// A RequestReply: who posts an event to it waits for the event that answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestReply {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Arc<str>,
    /// The Broker that requests go to, and that answers come from.
    pub broker: Name,
    /// The attribute that marks a request.
    pub correlation_attribute: Arc<str>,
    /// The attribute by which an answer says which request it is for.
    pub reply_attribute: Arc<str>,
    /// How long an answer is waited for.
    pub timeout: Duration,
}

/// What is wanted of a RequestReply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To answer this event with another.
    Request(Arc<RequestReply>),
    /// To take this event as an answer.
    Reply(Arc<RequestReply>),
}

impl Topology {
    /// The same with this RequestReply, in place of the one of its namespace and name. Its answers come to it by
    /// [`reply_subscription`](Self::reply_subscription), which its Broker must have.
    #[must_use]
    pub fn with_request_reply(mut self, of: RequestReply) -> Self {
        self.request_replies.insert((of.namespace.clone(), of.name.clone()), Arc::new(of));
        self
    }

    /// The same without the RequestReply of this namespace and name.
    #[must_use]
    pub fn without_request_reply(mut self, namespace: &str, name: &str) -> Self {
        self.request_replies.remove(&(namespace.into(), name.into()));
        self
    }

    /// The address of a RequestReply, whether it is there or not; nothing when its name is none of a URI.
    pub fn request_reply_address(&self, namespace: &str, name: &str) -> Option<Uri> {
        self.request_reply_uri(format!("/{namespace}/{name}"))
    }

    /// What brings the answers that come to its Broker to a RequestReply: those with its attribute. Which of them are for a
    /// request that waits, it knows itself; others are dropped. Nothing when a name is none of a URI or of an attribute.
    pub fn reply_subscription(&self, of: &RequestReply) -> Option<Subscription> {
        let uri = self.request_reply_uri(format!("/{}/{}/reply", of.namespace, of.name))?;
        let expression = Expression::parse(&format!("EXISTS {}", of.reply_attribute)).ok()?;
        let subscriber = Subscriber::At(Destination::new(uri));
        let filter = Filter::cesql(expression);
        Some(Subscription { filter, ..Subscription::new(&of.namespace, &of.name, &of.uid, subscriber) })
    }

    fn request_reply_uri(&self, path: String) -> Option<Uri> {
        Uri::builder().scheme("http").authority(self.names.request_reply_host()).path_and_query(path).build().ok()
    }

    /// What is wanted of which RequestReply, by the host that a request names and its target; nothing when the host is not
    /// that of RequestReplies.
    pub(crate) fn find_request_reply(&self, host: &str, target: &str) -> Option<Result<Asked, NotFound>> {
        let (namespace, name, is_reply) = match self.names.request_reply(host, target)? {
            Ok(named) => named,
            Err(error) => return Some(Err(error)),
        };
        let found = self.request_replies.get(&(namespace.into(), name.into())).cloned();
        let asked = found.map(|of| if is_reply { Asked::Reply(of) } else { Asked::Request(of) });
        Some(asked.ok_or(self.unknown()))
    }
}

#[cfg(test)]
mod tests {
    use knoll_event::{Event, filter::Verdict};

    use super::{super::Kind, *};

    fn request_reply() -> RequestReply {
        RequestReply {
            namespace: "ns".into(),
            name: "rr".into(),
            uid: "uid".into(),
            broker: Name::new(Kind::Broker, "ns", "b"),
            correlation_attribute: "correlationid".into(),
            reply_attribute: "replyid".into(),
            timeout: Duration::from_secs(30),
        }
    }

    #[test]
    fn a_request_and_an_answer_have_upstreams_addresses() {
        let of = Arc::new(request_reply());
        let topology = Topology::default().with_request_reply(request_reply());
        let address = topology.request_reply_address("ns", "rr").expect("a URI");
        assert_eq!(address, "http://request-reply.knative-eventing.svc.cluster.local/ns/rr");
        let host = address.host().expect("a host");
        let cases = [
            ("/ns/rr", Ok(Asked::Request(of.clone()))),
            ("/ns/rr/", Ok(Asked::Request(of.clone()))),
            ("/ns/rr/reply", Ok(Asked::Reply(of))),
            ("/ns/other", Err(NotFound::Unknown)),
            ("/ns/rr?x", Err(NotFound::Unknown)),
            ("/ns/rr/x", Err(NotFound::Malformed)),
            ("/ns", Err(NotFound::Malformed)),
            ("/ns/rr/reply/x", Err(NotFound::Malformed)),
            ("/", Err(NotFound::Elsewhere)),
        ];
        for (target, found) in cases {
            assert_eq!(topology.find_request_reply(host, target), Some(found), "{target}");
        }
        assert_eq!(topology.find_request_reply("broker-ingress.knative-eventing", "/ns/rr"), None);
        assert_eq!(topology.find_request_reply("request-reply.other", "/ns/rr"), None);
        let gone = topology.without_request_reply("ns", "rr");
        assert_eq!(gone.find_request_reply(host, "/ns/rr"), Some(Err(NotFound::Unknown)));
    }

    #[test]
    fn only_what_says_that_it_answers_comes_to_a_request_reply() {
        let subscription = Topology::default().reply_subscription(&request_reply()).expect("names");
        let mut event = Event::new("1", "/s", "t").expect("an event");
        assert_eq!(subscription.filter.verdict(&event), Verdict::Fail);
        event.set("replyid", "x").expect("an extension");
        assert_eq!(subscription.filter.verdict(&event), Verdict::Pass);
        let Subscriber::At(to) = subscription.subscriber else { panic!("it has an address") };
        assert_eq!(to.uri.path(), "/ns/rr/reply");
        let bad = RequestReply { reply_attribute: "a b".into(), ..request_reply() };
        assert!(Topology::default().reply_subscription(&bad).is_none());
    }
}
