//! RequestReplies in a snapshot: where requests over HTTP are answered by events.

use std::{sync::Arc, time::Duration};

use super::{Name, NotFound, Topology};

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
    /// The same with this RequestReply, in place of the one of its namespace and name. Its answers come to it by a Trigger of its
    /// Broker, at its address and `/reply`; which of them are for a request that waits, it knows itself.
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
        let host = "request-reply.knative-eventing.svc.cluster.local";
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
}
