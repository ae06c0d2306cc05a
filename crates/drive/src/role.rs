//! What a process takes on.

use std::collections::BTreeSet;

use knoll_api::{Kind, labels::serving::REVISION};
use knoll_client::watch::Collection;
use knoll_plan::{DECIDER_KINDS, Row, RowGroup, Rows, Settings, table};

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

    /// Serving's controllers over a cluster that brings its own controllers, or with those, too, where the settings say that
    /// there is none. Autoscaler, gateway and broker are other processes. `holder` names this process among those that want
    /// to lead.
    pub fn controller(settings: Settings, holder: &str) -> Role {
        let built_in: &[RowGroup] = if settings.standalone { &[RowGroup::Cluster] } else { &[] };
        let groups: Vec<RowGroup> = [RowGroup::Controllers].into_iter().chain(built_in.iter().copied()).collect();
        let role = Role::of("knoll-controller", &groups, settings);
        Role { lease: Some(role.lease_for(holder)), ..role }
    }

    /// How many instances revisions need, where the rest are other processes. `holder` names this process among those
    /// that want to lead.
    pub fn autoscaler(settings: Settings, holder: &str) -> Role {
        let role = Role { scales: true, ..Role::of("knoll-autoscaler", &[RowGroup::Autoscaler], settings) };
        Role { lease: Some(role.lease_for(holder)), ..role }
    }

    /// What a gateway of its own process routes by, and what it says about that.
    pub fn gateway(settings: Settings) -> Role {
        Role { routes: true, ..Role::of("knoll-gateway", &[RowGroup::Gateway], settings) }
    }

    /// What takes and delivers events in this process, and Eventing's controllers, which say what of it is carried out.
    pub fn broker(settings: Settings) -> Role {
        Role::of("knoll-broker", &[RowGroup::Eventing], settings)
    }

    /// The table alone, for a node in a process of its own: which names inside the cluster the gateway answers for.
    pub fn node(settings: Settings) -> Role {
        Role { routes: true, ..Role::of("knoll-node", &[], settings) }
    }

    fn of(name: &'static str, groups: &[RowGroup], settings: Settings) -> Role {
        Role { name, rows: knoll_plan::rows_of(groups), settings, routes: false, scales: false, lease: None }
    }

    fn lease_for(&self, holder: &str) -> Lease {
        let namespace = self.settings.system_namespace.clone();
        Lease { namespace, name: self.name.to_owned(), holder: holder.to_owned() }
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

    /// Whether what a gateway routes by is made of it.
    pub(crate) fn routes_by(&self, kind: Kind) -> bool {
        self.routes && table::KINDS.contains(&kind)
    }

    /// What of a kind is the configuration, where a gateway routes by that and more is followed.
    pub(crate) fn configuration(&self, kind: Kind) -> Option<Collection> {
        let path = kind.collection_path(Some(&self.settings.system_namespace));
        let configuration = Collection { path, ..Collection::default() };
        (self.routes && kind == Kind::ConfigMap && configuration != self.collection(kind)).then_some(configuration)
    }

    /// What it follows of a kind: on somebody else's cluster no more than what is Knative's.
    pub(crate) fn collection(&self, kind: Kind) -> Collection {
        let reads = |row: &Row| row.of == kind || row.reads.contains(&kind) || row.wakes.iter().any(|on| on.0 == kind);
        let reads_eventing = |row: &Row| row.configs.iter().any(|config| config.is_eventing());
        let all = Collection { path: kind.collection_path(None), ..Collection::default() };
        match kind {
            // Configuration alone, and that of one namespace.
            Kind::ConfigMap if !self.rows.all().iter().any(|row| reads(row) || reads_eventing(row)) => {
                Collection { path: kind.collection_path(Some(&self.settings.system_namespace)), ..all }
            }
            Kind::Pod if !self.settings.standalone => Collection { label_selector: REVISION.into(), ..all },
            _ => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_watches_what_it_declares_and_no_more() {
        assert_eq!(Role::everything(Settings::default()).kinds().len(), Kind::ALL.len());
        let over_a_cluster = Settings { standalone: false, ..Settings::default() };
        let kinds = Role::controller(over_a_cluster, "me").kinds();
        for foreign in [Kind::Secret, Kind::Node, Kind::Namespace, Kind::ServiceAccount, Kind::ReplicaSet] {
            assert!(!kinds.contains(&foreign), "{foreign:?}");
        }
        assert!(kinds.contains(&Kind::Revision) && kinds.contains(&Kind::Ingress));
        let secrets = |role: Role| role.kinds().contains(&Kind::Secret);
        let apart = [Role::autoscaler(Settings::default(), "me"), Role::gateway(Settings::default())];
        assert!(!apart.into_iter().any(secrets));
    }

    #[test]
    fn on_a_cluster_of_others_no_more_is_followed_than_what_is_knatives() {
        let of = |standalone, kind| {
            let settings = Settings { standalone, ..Settings::default() };
            let collection = Role::controller(settings, "me").collection(kind);
            (collection.path, collection.label_selector)
        };
        let (maps, pods) = (of(false, Kind::ConfigMap), of(false, Kind::Pod));
        assert_eq!(maps.0, "/api/v1/namespaces/knative-serving/configmaps");
        assert_eq!(pods, ("/api/v1/pods".into(), "serving.knative.dev/revision".into()));
        // The built-in controllers need all.
        assert_eq!(of(true, Kind::ConfigMap).0, "/api/v1/configmaps");
        assert_eq!(of(true, Kind::Pod), ("/api/v1/pods".into(), String::new()));
    }

    #[test]
    fn the_roles_of_a_split_instance_are_everything_together() {
        let names = |role: &Role| role.rows.all().iter().map(|row| row.name).collect::<Vec<_>>();
        let settings = Settings::default;
        let apart = [
            Role::controller(settings(), "me"),
            Role::autoscaler(settings(), "me"),
            Role::gateway(settings()),
            Role::broker(settings()),
            Role::node(settings()),
        ];
        let mut together: Vec<_> = apart.iter().flat_map(names).collect();
        let mut all = names(&Role::everything(settings()));
        together.sort_unstable();
        all.sort_unstable();
        assert_eq!(together, all);
    }
}
