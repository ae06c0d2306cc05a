//! InMemoryChannel.

use serde_json::Value;

use super::{
    super::{Context, diff, json},
    channel, delivery, namespace,
    reference::Scope,
};
use crate::{
    duck::Subscriber,
    field_error::{FieldError, FieldErrors, HERE},
    labels::{EVENTING_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE, eventing::SCOPE},
};

pub(in super::super) fn default(new: &mut Value) {
    channel::note_subscribable(new);
    let namespace = namespace(new).to_owned();
    if let Some(spec) = json::object_mut(new, "spec") {
        delivery::default(spec, &namespace);
    }
}

pub(in super::super) fn validate(new: &Value, old: Option<&Value>, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let subscribers = json::member(spec, "subscribers");
    let mut of_spec = FieldErrors::none();
    for (at, subscriber) in json::list(spec, "subscribers").iter().enumerate() {
        if !json::has(subscriber, "replyUri") && !json::has(subscriber, "subscriberUri") {
            let error = FieldError::missing(&["replyURI", "subscriberURI"]);
            let error = error.with_details("expected at least one of, got none");
            of_spec.also(FieldErrors::from(error).via_field_index("subscribable.subscriber", at));
        }
        let uid = json::text(subscriber, "uid");
        let read = Subscriber { uid: uid.to_owned(), ..Subscriber::default() };
        if !read.has_fitting_uid() {
            let error = FieldError::invalid(uid, "uid").with_details("expected the uid of a Subscription");
            of_spec.also(FieldErrors::from(error).via_field_index("subscribers", at));
        }
    }
    of_spec.also(delivery::validate(spec, Scope::anywhere(&context.eventing.features)));
    let mut errors = of_spec.via_field("spec");
    if let Some(scope) = json::annotations(new).get(SCOPE)
        && !matches!(scope.as_str(), "cluster" | "namespace")
    {
        let error = FieldError::invalid(scope, HERE).with_details("expected either 'cluster' or 'namespace'");
        errors.also(FieldErrors::from(error).via_key(SCOPE).via_field("metadata.annotations"));
    }
    if let Some(old) = old.filter(|_| !is_controller(context.user)) {
        let before = json::at(old, &["spec", "subscribers"]);
        let changes = diff::short("{[]v1.SubscriberSpec}", before, subscribers);
        if !changes.is_empty() {
            let message = format!(
                "Channel.Spec.Subscribers changed by user {} which was not the \
                 system:serviceaccount:{EVENTING_SYSTEM_NAMESPACE}:eventing-controller service account",
                context.user
            );
            errors.push(FieldError::new(message, &["spec.subscribers"]).with_details(changes));
        }
    }
    errors
}

/// Whether this is the controller of Subscriptions: Eventing's where it has its own, or ours, which does everything.
fn is_controller(user: &str) -> bool {
    let account = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    matches!(account, Some((EVENTING_SYSTEM_NAMESPACE, "eventing-controller") | (SYSTEM_NAMESPACE, "controller")))
}
