//! EventPolicies of channels that users do not write themselves: the one behind a Channel, and those of a flow. Who may send to
//! the Channel or flow may send into the first of them, and into a later one only the Subscription before it.

use knoll_api::{
    Key, Kind, Resource,
    eventing::{
        EventPolicy, EventPolicyFrom, EventPolicySender, EventPolicySpec, EventPolicyTarget, EventPolicyTo,
        SubscriptionsApiFilter,
    },
};

use super::policies;
use crate::{
    Plan, World,
    children::{Map, child_of},
};

/// A channel that is made for something.
type Channel<'a> = (Kind, &'a Key);

/// See the module.
pub(super) struct BackingPolicies<'a, R> {
    world: &'a World,
    owner: &'a R,
    labels: Map,
    wanted: Vec<EventPolicy>,
}

impl<'a, R: Resource> BackingPolicies<'a, R> {
    /// Those of an object, with these labels.
    pub(super) fn of(world: &'a World, owner: &'a R, labels: Map) -> Self {
        Self { world, owner, labels, wanted: Vec::new() }
    }

    /// Who may send to the object may send to this channel. The name of a policy gives that of what is made of it.
    pub(super) fn admit_those_of_owner(&mut self, channel: Channel<'_>, name: impl Fn(&str) -> String) {
        for policy in policies::applying(self.world, self.owner) {
            self.add(channel, name(policy.name()), policy.spec.from.clone(), policy.spec.filters.clone());
        }
    }

    /// Only this Subscription may send to this channel.
    pub(super) fn admit_subscription(&mut self, channel: Channel<'_>, name: String, subscription: &Key) {
        let sender = EventPolicySender {
            api_version: Kind::Subscription.api_version(),
            kind: Kind::Subscription.kind().to_owned(),
            name: subscription.name.clone(),
            namespace: subscription.namespace.clone(),
        };
        self.add(channel, name, vec![EventPolicyFrom { ref_: Some(sender), sub: None }], Vec::new());
    }

    fn add(
        &mut self,
        (kind, key): Channel<'_>,
        name: String,
        from: Vec<EventPolicyFrom>,
        filters: Vec<SubscriptionsApiFilter>,
    ) {
        let target =
            EventPolicyTarget { api_version: kind.api_version(), kind: kind.kind().to_owned(), name: key.name.clone() };
        let to = vec![EventPolicyTo { ref_: Some(target), selector: None }];
        let metadata = child_of(self.owner, name, self.labels.clone(), Map::new());
        self.wanted.push(EventPolicy {
            metadata,
            spec: EventPolicySpec { to, from, filters },
            ..EventPolicy::default()
        });
    }

    /// Sees to it that there are those and no others; none where nobody is asked who they are. A name that is somebody
    /// else's is left to them.
    pub(super) fn settle(mut self, plan: &mut Plan) {
        if !self.world.eventing.features.oidc_authentication.is_enabled() {
            self.wanted.clear();
        }
        for there in self.world.event_policies.owned_by(self.owner.uid()) {
            let is_wanted = self.wanted.iter().any(|wanted| wanted.name() == there.name());
            if !is_wanted && !there.is_deleting() {
                plan.delete(there.as_ref());
            }
        }
        for wanted in self.wanted {
            match self.world.event_policies.get(&wanted.key()) {
                None => plan.create(wanted),
                Some(there) if there.is_controlled_by(self.owner) && !there.is_deleting() => {
                    let next = EventPolicy { spec: wanted.spec, ..EventPolicy::clone(&there) };
                    plan.update(there.as_ref(), next);
                }
                Some(_) => {}
            }
        }
    }
}
