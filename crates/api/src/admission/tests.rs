//! Whole objects in, texts out.

mod autoscaling;
mod defaulting;
mod eventing;
mod internal;
mod pod;
mod serving;

use expect_test::Expect;
use serde_json::{Value, json};

use super::*;
use crate::config::Features;

/// Checks objects as they would be stored: filled in first, by `user`.
struct Check {
    config: ConfigBundle,
    eventing: EventingBundle,
}

impl Check {
    fn new() -> Check {
        Check { config: ConfigBundle::default(), eventing: EventingBundle::default() }
    }

    fn with_features(pairs: &[(&str, &str)]) -> Check {
        let data = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        Check { config: ConfigBundle { features: Features::parse(&data), ..ConfigBundle::default() }, ..Check::new() }
    }

    fn context(&self) -> Context<'_> {
        Context { config: &self.config, eventing: &self.eventing, user: "alice", now: Timestamp::UNIX_EPOCH }
    }

    fn defaulted(&self, kind: Kind, mut object: Value) -> Value {
        default(kind, Operation::Create, &mut object, None, &self.context());
        let once = object.clone();
        default(kind, Operation::Create, &mut object, None, &self.context());
        assert_eq!(object, once, "filling in twice changes nothing");
        object
    }

    fn updated(&self, kind: Kind, old: &Value, mut new: Value) -> Value {
        default(kind, Operation::Update, &mut new, Some(old), &self.context());
        new
    }

    /// The problems of a new object.
    fn errors(&self, kind: Kind, object: Value) -> String {
        let object = self.defaulted(kind, object);
        validate(kind, Operation::Create, &object, None, &self.context()).0.to_string()
    }

    /// The problems of a change.
    fn update_errors(&self, kind: Kind, old: &Value, new: Value) -> String {
        let new = self.updated(kind, old, new);
        validate(kind, Operation::Update, &new, Some(old), &self.context()).0.to_string()
    }

    /// The problems of a Service whose revisions have this spec.
    fn pod(&self, spec: Value, expected: Expect) {
        expected.assert_eq(&self.errors(Kind::Service, service_with(spec)));
    }
}

fn service_with(spec: Value) -> Value {
    json!({"metadata": {"name": "hello", "namespace": "ns"}, "spec": {"template": {"spec": spec}}})
}

fn service() -> Value {
    service_with(json!({"containers": [{"image": "busybox"}]}))
}
