//! How a plan reports what it found: the status of the object it planned for.

use knoll_api::{
    Object, Resource, Timestamp,
    conditions::{ConditionManager, LivingSet},
    status::{Condition, DuckStatus},
};

use crate::Plan;

/// A kind of ours: its status begins with conditions and the generation they speak of.
pub(crate) trait Reporting: Resource + Into<Object> {
    /// Which conditions make it ready.
    const SET: LivingSet;

    /// The beginning of its status.
    fn common(&self) -> &DuckStatus;

    /// The beginning of its status, to change.
    fn common_mut(&mut self) -> &mut DuckStatus;

    /// Its conditions, to write.
    fn conditions(&mut self, now: Timestamp) -> ConditionManager<'_> {
        Self::SET.manage(&mut self.common_mut().conditions, now)
    }

    /// A condition.
    fn condition(&self, type_: &str) -> Option<&Condition> {
        knoll_api::conditions::find(&self.common().conditions, type_)
    }

    /// Whether its status speaks of its newest generation.
    fn is_observed(&self) -> bool {
        knoll_api::conditions::observed(self.meta().generation, self.common())
    }

    /// Whether its newest generation is ready.
    fn is_ready(&self) -> bool {
        knoll_api::conditions::is_ready(self.meta().generation, self.common())
    }

    /// Whether its newest generation failed.
    fn is_failed(&self) -> bool {
        knoll_api::conditions::is_failed(self.meta().generation, self.common())
    }
}

macro_rules! reporting {
    ($($ty:path => $set:ident in $($status:ident).+),* $(,)?) => {
        $(
            impl Reporting for $ty {
                const SET: LivingSet = knoll_api::conditions::$set;
                fn common(&self) -> &DuckStatus { &self.$($status).+ }
                fn common_mut(&mut self) -> &mut DuckStatus { &mut self.$($status).+ }
            }
        )*
    };
}
reporting! {
    knoll_api::serving::Service => SERVICE in status.common,
    knoll_api::serving::Configuration => CONFIGURATION in status.common,
    knoll_api::serving::Revision => REVISION in status.common,
    knoll_api::serving::Route => ROUTE in status.common,
    knoll_api::serving::DomainMapping => DOMAIN_MAPPING in status.common,
    knoll_api::autoscaling::PodAutoscaler => POD_AUTOSCALER in status.common,
    knoll_api::autoscaling::Metric => METRIC in status.common,
    knoll_api::networking::ServerlessService => SERVERLESS_SERVICE in status.common,
    knoll_api::networking::Ingress => INGRESS in status.common,
    knoll_api::networking::Certificate => CERTIFICATE in status.common,
    knoll_api::eventing::Broker => BROKER in status.common,
    knoll_api::eventing::Trigger => TRIGGER in status.common,
    knoll_api::eventing::EventPolicy => EVENT_POLICY in status.common,
    knoll_api::eventing::EventType => EVENT_TYPE in status.common,
    knoll_api::messaging::Channel => CHANNEL in status.channelable.common,
    knoll_api::messaging::InMemoryChannel => IN_MEMORY_CHANNEL in status.common,
    knoll_api::messaging::Subscription => SUBSCRIPTION in status.common,
    knoll_api::flows::Sequence => FLOW in status.common,
    knoll_api::flows::Parallel => FLOW in status.common,
    knoll_api::sources::ApiServerSource => API_SERVER_SOURCE in status.source.common,
    knoll_api::sources::ContainerSource => CONTAINER_SOURCE in status.common,
    knoll_api::sources::PingSource => PING_SOURCE in status.common,
    knoll_api::sources::SinkBinding => SINK_BINDING in status.source.common,
    knoll_api::sources::IntegrationSource => INTEGRATION_SOURCE in status.common,
    knoll_api::sinks::JobSink => JOB_SINK in status.common,
    knoll_api::sinks::IntegrationSink => INTEGRATION_SINK in status.common,
    knoll_api::eventing::EventTransform => EVENT_TRANSFORM in status.source.common,
    knoll_api::eventing::RequestReply => REQUEST_REPLY in status.common,
}

impl Plan {
    /// Wants `after` as the status of `before`, for the generation that was planned. Conditions that end up as
    /// they began keep their transition time, whatever they went through on the way.
    pub(crate) fn report<R: Reporting>(&mut self, before: &R, mut after: R) {
        let common = after.common_mut();
        common.observed_generation = before.meta().generation;
        for condition in &mut common.conditions {
            if let Some(was) = knoll_api::conditions::find(&before.common().conditions, &condition.type_) {
                let unmoved = Condition { last_transition_time: was.last_transition_time.clone(), ..condition.clone() };
                if unmoved == *was {
                    *condition = unmoved;
                }
            }
        }
        self.status(before, after);
    }
}
