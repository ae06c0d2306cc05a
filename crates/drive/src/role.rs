//! What a process takes on.

use std::collections::BTreeSet;

use knoll_api::Kind;
use knoll_plan::{DECIDER_KINDS, Part, Rows, Settings, table};

use crate::lease::Lease;

/// What a process takes on: its controllers, what they were told at start, and what it gives to others.
pub struct Role {
    /// For logs, and the name of its lease.
    pub name: &'static str,
    /// The controllers.
    pub rows: Rows,
    /// What they were told at start.
    pub settings: Settings,
    /// Whether it keeps the table of a gateway in this process.
    pub routes: bool,
    /// Whether it decides how many instances revisions need.
    pub scales: bool,
    /// What it must hold to plan; nothing where it is alone.
    pub lease: Option<Lease>,
}

impl Role {
    /// Everything there is for these settings, in one process.
    pub fn everything(settings: Settings) -> Role {
        Role { name: "knoll", rows: knoll_plan::rows(&settings), settings, routes: true, scales: true, lease: None }
    }

    /// Knative's controllers over somebody else's cluster, which brings its own controllers, autoscaler and gateway.
    /// `holder` names this process among those that want to lead.
    pub fn controller(settings: Settings, holder: &str) -> Role {
        let rows = knoll_plan::rows_of(&[Part::Controllers]);
        let name = "knoll-controller";
        let lease =
            Lease { namespace: settings.system_namespace.clone(), name: name.to_owned(), holder: holder.to_owned() };
        Role { name, rows, settings, routes: false, scales: false, lease: Some(lease) }
    }

    /// Kinds that it watches.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        let mut kinds = self.rows.kinds();
        if self.routes {
            kinds.extend(table::KINDS);
        }
        if self.scales {
            kinds.extend(DECIDER_KINDS);
        }
        // The control plane's own configuration decides about every plan.
        kinds.insert(Kind::ConfigMap);
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_watches_what_it_declares_and_no_more() {
        assert_eq!(Role::everything(Settings::default()).kinds().len(), Kind::ALL.len());
        let kinds = Role::controller(Settings::default(), "me").kinds();
        for foreign in [Kind::Secret, Kind::Node, Kind::Namespace, Kind::ServiceAccount, Kind::ReplicaSet] {
            assert!(!kinds.contains(&foreign), "{foreign:?}");
        }
        assert!(kinds.contains(&Kind::Revision) && kinds.contains(&Kind::Ingress));
    }
}
