//! Living condition sets: one happy condition that sums up its dependents.
//!
//! Writing a dependent moves the happy condition at once; conditions outside the set have severity `Info` and never
//! move it. `lastTransitionTime` changes only when anything else about the condition does, because the autoscaler
//! reads it as a clock. Conditions stay sorted by type.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    Timestamp,
    status::{Condition, DuckStatus},
};

/// Status of a condition that holds.
pub const TRUE: &str = "True";
/// Status of a condition that does not hold.
pub const FALSE: &str = "False";
/// Status of a condition that nobody can tell yet.
pub const UNKNOWN: &str = "Unknown";
/// The happy condition of every kind here.
pub const READY: &str = "Ready";
/// Severity of conditions outside the set.
const INFO: &str = "Info";

/// Which conditions make up the happy one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivingSet {
    happy: &'static str,
    dependents: &'static [&'static str],
}

/// Service.
pub const SERVICE: LivingSet = LivingSet::new(READY, &["ConfigurationsReady", "RoutesReady"]);
/// Configuration.
pub const CONFIGURATION: LivingSet = LivingSet::new(READY, &[]);
/// Revision; `Active` is only informative.
pub const REVISION: LivingSet = LivingSet::new(READY, &["ResourcesAvailable", "ContainerHealthy"]);
/// Route.
pub const ROUTE: LivingSet = LivingSet::new(READY, &["AllTrafficAssigned", "IngressReady", "CertificateProvisioned"]);
/// DomainMapping.
pub const DOMAIN_MAPPING: LivingSet =
    LivingSet::new(READY, &["DomainClaimed", "ReferenceResolved", "IngressReady", "CertificateProvisioned"]);
/// PodAutoscaler.
pub const POD_AUTOSCALER: LivingSet = LivingSet::new(READY, &["Active", "ScaleTargetInitialized", "SKSReady"]);
/// Metric.
pub const METRIC: LivingSet = LivingSet::new(READY, &[]);
/// ServerlessService; `ActivatorEndpointsPopulated` is only informative.
pub const SERVERLESS_SERVICE: LivingSet = LivingSet::new(READY, &["EndpointsPopulated"]);
/// Ingress.
pub const INGRESS: LivingSet = LivingSet::new(READY, &["NetworkConfigured", "LoadBalancerReady"]);
/// Certificate; `Renewing` is only informative.
pub const CERTIFICATE: LivingSet = LivingSet::new(READY, &[]);

/// Broker.
pub const BROKER: LivingSet = LivingSet::new(
    READY,
    &[
        "IngressReady",
        "TriggerChannelReady",
        "FilterReady",
        "Addressable",
        "DeadLetterSinkResolved",
        "EventPoliciesReady",
    ],
);
/// Trigger.
pub const TRIGGER: LivingSet = LivingSet::new(
    READY,
    &[
        "BrokerReady",
        "SubscriptionReady",
        "DependencyReady",
        "SubscriberResolved",
        "DeadLetterSinkResolved",
        "OIDCIdentityCreated",
    ],
);
/// EventPolicy.
pub const EVENT_POLICY: LivingSet = LivingSet::new(READY, &["AuthenticationEnabled", "SubjectsResolved"]);
/// EventTransform; what carries it out is only informative.
pub const EVENT_TRANSFORM: LivingSet =
    LivingSet::new(READY, &["TransformationReady", "Addressable", "EventPoliciesReady"]);
/// EventType.
pub const EVENT_TYPE: LivingSet = LivingSet::new(READY, &["ReferenceExists"]);
/// RequestReply.
pub const REQUEST_REPLY: LivingSet =
    LivingSet::new(READY, &["TriggersReady", "Addressable", "EventPoliciesReady", "BrokerReady"]);
/// Channel.
pub const CHANNEL: LivingSet =
    LivingSet::new(READY, &["BackingChannelReady", "Addressable", "DeadLetterSinkResolved", "EventPoliciesReady"]);
/// InMemoryChannel; `DispatcherReady` is only informative.
pub const IN_MEMORY_CHANNEL: LivingSet = LivingSet::new(
    READY,
    &[
        "ServiceReady",
        "EndpointsReady",
        "Addressable",
        "ChannelServiceReady",
        "DeadLetterSinkResolved",
        "EventPoliciesReady",
    ],
);
/// Subscription.
pub const SUBSCRIPTION: LivingSet =
    LivingSet::new(READY, &["ReferencesResolved", "AddedToChannel", "ChannelReady", "OIDCIdentityCreated"]);
/// Sequence and Parallel.
pub const FLOW: LivingSet =
    LivingSet::new(READY, &["ChannelsReady", "SubscriptionsReady", "Addressable", "EventPoliciesReady"]);
/// ApiServerSource.
pub const API_SERVER_SOURCE: LivingSet =
    LivingSet::new(READY, &["SinkProvided", "Deployed", "SufficientPermissions", "OIDCIdentityCreated"]);
/// ContainerSource.
pub const CONTAINER_SOURCE: LivingSet = LivingSet::new(READY, &["SinkBindingReady", "ReceiveAdapterReady"]);
/// PingSource.
pub const PING_SOURCE: LivingSet = LivingSet::new(READY, &["SinkProvided", "Deployed", "OIDCIdentityCreated"]);
/// SinkBinding.
pub const SINK_BINDING: LivingSet = LivingSet::new(
    READY,
    &["SinkBindingAvailable", "SinkProvided", "OIDCIdentityCreated", "OIDCTokenSecretCreated", "TrustBundlePropagated"],
);
/// IntegrationSource.
pub const INTEGRATION_SOURCE: LivingSet = LivingSet::new(READY, &["ContainerSourceReady"]);
/// JobSink.
pub const JOB_SINK: LivingSet = LivingSet::new(READY, &["Addressable", "EventPoliciesReady"]);
/// IntegrationSink; `CertificateReady` is only informative.
pub const INTEGRATION_SINK: LivingSet =
    LivingSet::new(READY, &["Addressable", "DeploymentReady", "EventPoliciesReady", "TrustBundlePropagated"]);

impl LivingSet {
    /// A set with `happy` over `dependents`, which must not repeat nor contain `happy`.
    pub const fn new(happy: &'static str, dependents: &'static [&'static str]) -> LivingSet {
        LivingSet { happy, dependents }
    }

    /// The happy condition's type.
    pub const fn happy(&self) -> &'static str {
        self.happy
    }

    /// The dependents' types.
    pub const fn dependents(&self) -> &'static [&'static str] {
        self.dependents
    }

    /// Begins writing `conditions`; changes are stamped with `now`, cut to whole seconds as the wire form is.
    pub fn manage(self, conditions: &mut Vec<Condition>, now: Timestamp) -> ConditionManager<'_> {
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        ConditionManager { set: self, conditions, now }
    }

    fn is_terminal(&self, type_: &str) -> bool {
        type_ == self.happy || self.dependents.contains(&type_)
    }

    fn severity(&self, type_: &str) -> &'static str {
        if self.is_terminal(type_) { "" } else { INFO }
    }
}

/// Writes the conditions of one status by the rules of its [`LivingSet`].
#[derive(Debug)]
pub struct ConditionManager<'a> {
    set: LivingSet,
    conditions: &'a mut Vec<Condition>,
    now: Timestamp,
}

impl ConditionManager<'_> {
    /// Makes sure that the happy condition and every dependent are there: Unknown, except that missing dependents
    /// of a happy condition that is already True start as True.
    ///
    /// A transition that is said to be still to come, for the clock was set back since, counts as one of now: whoever
    /// waits for a condition's age would wait that much longer.
    pub fn initialize(&mut self) -> &mut Self {
        let now = self.now;
        for time in self.conditions.iter_mut().filter_map(|condition| condition.last_transition_time.as_mut()) {
            time.0 = time.0.min(now);
        }
        let happy = self.set.happy;
        if self.get(happy).is_none() {
            self.set_content(happy, UNKNOWN, "", "");
        }
        let status = if self.get(happy).is_some_and(is_true) { TRUE } else { UNKNOWN };
        for &dependent in self.set.dependents {
            if self.get(dependent).is_none() {
                self.set_content(dependent, status, "", "");
            }
        }
        self
    }

    /// The condition of this type.
    pub fn get(&self, type_: &str) -> Option<&Condition> {
        find(self.conditions, type_)
    }

    /// The happy condition.
    pub fn happy(&self) -> Option<&Condition> {
        self.get(self.set.happy)
    }

    /// Marks `type_` True and recomputes the happy condition.
    pub fn mark_true(&mut self, type_: &str) -> &mut Self {
        self.mark_true_with_reason(type_, "", "")
    }

    /// Marks `type_` True with a reason and recomputes the happy condition.
    pub fn mark_true_with_reason(&mut self, type_: &str, reason: &str, message: &str) -> &mut Self {
        self.set_content(type_, TRUE, reason, message);
        let happy = self.set.happy;
        if let Some(unhappy) = self.unhappy_dependent() {
            self.set_content(happy, &unhappy.status, &unhappy.reason, &unhappy.message);
        } else if type_ != happy {
            self.set_content(happy, TRUE, "", "");
        }
        self
    }

    /// Marks `type_` Unknown, and with a dependent the happy condition too, unless some dependent is False: then the
    /// happy condition stays False, or becomes False.
    pub fn mark_unknown(&mut self, type_: &str, reason: &str, message: &str) -> &mut Self {
        self.set_content(type_, UNKNOWN, reason, message);
        let happy = self.set.happy;
        if self.set.dependents.iter().any(|dependent| self.get(dependent).is_some_and(is_false)) {
            if !self.happy().is_some_and(is_false) {
                self.set_content(happy, FALSE, reason, message);
            }
        } else if self.set.dependents.contains(&type_) {
            self.set_content(happy, UNKNOWN, reason, message);
        }
        self
    }

    /// Marks `type_` False, and with a dependent the happy condition too, with the same reason and message.
    pub fn mark_false(&mut self, type_: &str, reason: &str, message: &str) -> &mut Self {
        self.set_content(type_, FALSE, reason, message);
        if self.set.dependents.contains(&type_) {
            self.set_content(self.set.happy, FALSE, reason, message);
        }
        self
    }

    /// Writes one condition as it is given, without moving the happy condition. `severity` is taken from `condition`;
    /// its `lastTransitionTime` is ignored.
    pub fn set(&mut self, mut condition: Condition) -> &mut Self {
        let at = self.conditions.iter().position(|c| c.type_ == condition.type_);
        condition.last_transition_time = at.and_then(|at| self.conditions[at].last_transition_time.clone());
        if at.is_some_and(|at| self.conditions[at] == condition) {
            return self;
        }
        condition.last_transition_time = Some(Time(self.now));
        match at {
            Some(at) => self.conditions[at] = condition,
            None => self.conditions.push(condition),
        }
        self.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        self
    }

    /// Removes a condition that is outside the set; the happy condition and dependents stay. Returns whether
    /// anything was removed.
    pub fn clear(&mut self, type_: &str) -> bool {
        let before = self.conditions.len();
        if !self.set.is_terminal(type_) {
            self.conditions.retain(|c| c.type_ != type_);
        }
        self.conditions.len() != before
    }

    fn set_content(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        self.set(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            severity: self.set.severity(type_).to_owned(),
            last_transition_time: None,
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
    }

    /// The dependent that keeps the happy condition from True: the latest False one, else the latest Unknown one,
    /// else an empty Unknown where a dependent is missing. Among equally late ones, the one that the happy condition
    /// speaks of already wins, for it was written last.
    fn unhappy_dependent(&self) -> Option<Condition> {
        if self.set.dependents.is_empty() {
            return None;
        }
        let happy = self.happy();
        let speaks_of = |c: &Condition| happy.is_some_and(|h| h.reason == c.reason && h.message == c.message);
        let mut terminal: Vec<&Condition> =
            self.conditions.iter().filter(|c| c.severity.is_empty() && c.type_ != self.set.happy).collect();
        terminal
            .sort_by(|a, b| b.last_transition_time.cmp(&a.last_transition_time).then(speaks_of(b).cmp(&speaks_of(a))));
        let worst = terminal.iter().find(|c| is_false(c)).or_else(|| terminal.iter().find(|c| is_unknown(c)));
        if let Some(worst) = worst {
            return Some((*worst).clone());
        }
        let missing = self.set.dependents.len() > terminal.len();
        missing.then(|| Condition { status: UNKNOWN.to_owned(), ..Condition::default() })
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition's status is True.
pub fn is_true(condition: &Condition) -> bool {
    condition.status == TRUE
}

/// Whether the condition's status is False.
pub fn is_false(condition: &Condition) -> bool {
    condition.status == FALSE
}

/// Whether the condition's status is Unknown.
pub fn is_unknown(condition: &Condition) -> bool {
    condition.status == UNKNOWN
}

/// Whether a status speaks of `generation` and says Ready.
pub fn is_ready(generation: Option<i64>, status: &DuckStatus) -> bool {
    observed(generation, status) && find(&status.conditions, READY).is_some_and(is_true)
}

/// Whether a status speaks of `generation` and says not Ready for good.
pub fn is_failed(generation: Option<i64>, status: &DuckStatus) -> bool {
    observed(generation, status) && find(&status.conditions, READY).is_some_and(is_false)
}

/// Whether a status speaks of `generation`. Neither being set counts as generation 0.
pub fn observed(generation: Option<i64>, status: &DuckStatus) -> bool {
    generation.unwrap_or_default() == status.observed_generation.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small second is a timestamp")
    }

    fn check(conditions: &[Condition], expected: Expect) {
        let mut text = String::new();
        for c in conditions {
            let time = c.last_transition_time.as_ref().map_or(-1, |t| t.0.as_second());
            text += &format!("{}={} @{time} [{}] {} {}\n", c.type_, c.status, c.severity, c.reason, c.message);
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn initializing_starts_everything_unknown() {
        let mut conditions = Vec::new();
        SERVICE.manage(&mut conditions, at(1)).initialize();
        check(
            &conditions,
            expect![[r#"
                ConfigurationsReady=Unknown @1 []  
                Ready=Unknown @1 []  
                RoutesReady=Unknown @1 []  
            "#]],
        );
    }

    #[test]
    fn a_transition_that_is_still_to_come_counts_as_one_of_now() {
        let mut conditions = Vec::new();
        SERVICE.manage(&mut conditions, at(86_400)).initialize();
        SERVICE.manage(&mut conditions, at(5)).initialize().mark_true("RoutesReady");
        check(
            &conditions,
            expect![[r#"
                ConfigurationsReady=Unknown @5 []  
                Ready=Unknown @5 []  
                RoutesReady=True @5 []  
            "#]],
        );
    }

    #[test]
    fn initializing_under_a_true_ready_starts_missing_dependents_true() {
        let mut conditions = vec![Condition { type_: READY.into(), status: TRUE.into(), ..Condition::default() }];
        REVISION.manage(&mut conditions, at(1)).initialize();
        assert!(conditions.iter().all(is_true));
    }

    #[test]
    fn a_false_dependent_lends_ready_its_reason_and_the_latest_wins() {
        let mut conditions = Vec::new();
        SERVICE.manage(&mut conditions, at(1)).initialize().mark_false("RoutesReady", "A", "a");
        SERVICE.manage(&mut conditions, at(2)).mark_false("ConfigurationsReady", "B", "b");
        check(
            &conditions,
            expect![[r#"
                ConfigurationsReady=False @2 [] B b
                Ready=False @2 [] B b
                RoutesReady=False @1 [] A a
            "#]],
        );
    }

    #[test]
    fn unknown_does_not_lift_a_false_ready() {
        let mut conditions = Vec::new();
        SERVICE.manage(&mut conditions, at(1)).initialize().mark_false("RoutesReady", "A", "a");
        SERVICE.manage(&mut conditions, at(2)).mark_unknown("ConfigurationsReady", "B", "b");
        check(
            &conditions,
            expect![[r#"
                ConfigurationsReady=Unknown @2 [] B b
                Ready=False @1 [] A a
                RoutesReady=False @1 [] A a
            "#]],
        );
    }

    #[test]
    fn unknown_makes_ready_false_when_a_dependent_is_false() {
        let mut conditions = Vec::new();
        let mut manager = SERVICE.manage(&mut conditions, at(1));
        manager.initialize().mark_false("RoutesReady", "A", "a").mark_unknown(READY, "N", "n");
        check(
            &conditions,
            expect![[r#"
                ConfigurationsReady=Unknown @1 []  
                Ready=False @1 [] N n
                RoutesReady=False @1 [] A a
            "#]],
        );
    }

    #[test]
    fn true_shows_the_latest_remaining_unhappy_dependent() {
        let mut conditions = Vec::new();
        ROUTE.manage(&mut conditions, at(1)).initialize().mark_unknown("IngressReady", "Old", "");
        ROUTE.manage(&mut conditions, at(2)).mark_unknown("CertificateProvisioned", "New", "");
        ROUTE.manage(&mut conditions, at(3)).mark_true("AllTrafficAssigned");
        check(
            &conditions,
            expect![[r#"
                AllTrafficAssigned=True @3 []  
                CertificateProvisioned=Unknown @2 [] New 
                IngressReady=Unknown @1 [] Old 
                Ready=Unknown @2 [] New 
            "#]],
        );
        ROUTE.manage(&mut conditions, at(4)).mark_true("IngressReady");
        ROUTE.manage(&mut conditions, at(5)).mark_true_with_reason("CertificateProvisioned", "TLSNotEnabled", "off");
        check(
            &conditions,
            expect![[r#"
                AllTrafficAssigned=True @3 []  
                CertificateProvisioned=True @5 [] TLSNotEnabled off
                IngressReady=True @4 []  
                Ready=True @5 []  
            "#]],
        );
    }

    #[test]
    fn a_missing_dependent_keeps_ready_unknown() {
        let mut conditions = Vec::new();
        SERVICE.manage(&mut conditions, at(1)).mark_true("RoutesReady");
        check(
            &conditions,
            expect![[r#"
                Ready=Unknown @1 []  
                RoutesReady=True @1 []  
            "#]],
        );
    }

    #[test]
    fn conditions_outside_the_set_are_informative_only() {
        let mut conditions = Vec::new();
        let mut manager = REVISION.manage(&mut conditions, at(1));
        manager.initialize().mark_true("ContainerHealthy").mark_true("ResourcesAvailable");
        manager.mark_false("Active", "NoTraffic", "idle");
        check(
            &conditions,
            expect![[r#"
                Active=False @1 [Info] NoTraffic idle
                ContainerHealthy=True @1 []  
                Ready=True @1 []  
                ResourcesAvailable=True @1 []  
            "#]],
        );
        assert!(REVISION.manage(&mut conditions, at(2)).clear("Active"));
        assert!(!REVISION.manage(&mut conditions, at(2)).clear(READY));
    }

    #[test]
    fn a_kind_without_dependents_is_told_directly() {
        let mut conditions = Vec::new();
        CONFIGURATION.manage(&mut conditions, at(1)).initialize().mark_true(READY);
        check(
            &conditions,
            expect![[r#"
                Ready=True @1 []  
            "#]],
        );
    }

    #[test]
    fn saying_the_same_again_keeps_the_transition_time() {
        let mut conditions = Vec::new();
        CONFIGURATION.manage(&mut conditions, at(1)).mark_false(READY, "A", "a");
        let before = conditions.clone();
        CONFIGURATION.manage(&mut conditions, at(9)).mark_false(READY, "A", "a");
        assert_eq!(conditions, before);
    }

    #[test]
    fn readiness_counts_only_for_the_observed_generation() {
        let mut common = DuckStatus { observed_generation: Some(1), ..DuckStatus::default() };
        SERVICE.manage(&mut common.conditions, at(1)).mark_true("RoutesReady").mark_true("ConfigurationsReady");
        assert!(is_ready(Some(1), &common));
        assert!(!is_ready(Some(2), &common));
        SERVICE.manage(&mut common.conditions, at(1)).mark_false("RoutesReady", "A", "a");
        assert!(is_failed(Some(1), &common));
        assert!(!is_failed(Some(2), &common));
    }
}
