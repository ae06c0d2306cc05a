//! What types of events sources send, as the definitions of their kinds say it.

/// The types of events that ApiServerSources send, JSON; an annotation of the kind.
pub const API_SERVER_EVENT_TYPES: &str = r#"[
  {"type": "dev.knative.apiserver.resource.add", "description": "An object was added; the event holds it"},
  {"type": "dev.knative.apiserver.resource.delete", "description": "An object was deleted; the event holds it"},
  {"type": "dev.knative.apiserver.resource.update", "description": "An object changed; the event holds it"},
  {"type": "dev.knative.apiserver.ref.add", "description": "An object was added; the event names it"},
  {"type": "dev.knative.apiserver.ref.delete", "description": "An object was deleted; the event names it"},
  {"type": "dev.knative.apiserver.ref.update", "description": "An object changed; the event names it"}
]"#;
/// The types of events that PingSources send, JSON; an annotation of the kind.
pub const PING_EVENT_TYPES: &str = r#"[{"type": "dev.knative.sources.ping", "description": "The fixed data of a PingSource, at the times of its schedule"}]"#;
