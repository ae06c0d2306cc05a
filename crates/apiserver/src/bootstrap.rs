//! The objects that every cluster has from the start.

use std::sync::Arc;

use jiff::Timestamp;
use knoll_api::{
    config::{self, eventing},
    labels::{EVENTING_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE},
};
use knoll_store::{Expect, Write, WriteError};
use serde_json::{Value, json};

use crate::{
    ApiServer, addresses, auth, hooks, metadata, object, objects,
    resources::{self, Resource},
    status::Status,
};

const NAMESPACES: &[&str] =
    &["default", "kube-system", "kube-public", "kube-node-lease", SYSTEM_NAMESPACE, EVENTING_SYSTEM_NAMESPACE];

impl ApiServer {
    /// Makes what is missing of the objects that every cluster has. Safe to call at every start.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn bootstrap(self: &Arc<Self>) -> Result<(), Status> {
        for namespace in NAMESPACES {
            self.ensure(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
        }
        for definition in resources::knative::definitions() {
            self.ensure(definition).await?;
        }
        for name in config::NAMES {
            self.ensure(config_map(SYSTEM_NAMESPACE, name, initial_data(name))).await?;
        }
        for name in eventing::NAMES {
            self.ensure(config_map(EVENTING_SYSTEM_NAMESPACE, name, json!(eventing::shipped(name)))).await?;
        }
        for object in auth::rbac_objects() {
            self.reconcile(object).await?;
        }
        for account in auth::accounts() {
            self.ensure(account).await?;
        }
        for (name, value) in [("system-node-critical", 2_000_001_000_i64), ("system-cluster-critical", 2_000_000_000)] {
            self.ensure(json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            }))
            .await?;
        }
        self.kubernetes_service().await
    }

    /// The Service under which pods find the server, pointing at where it listens now.
    async fn kubernetes_service(self: &Arc<Self>) -> Result<(), Status> {
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let port = self.config.advertise.port();
        let address = self.config.advertise.ip().to_string();
        self.ensure(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": addresses::KUBERNETES.to_string(),
                "clusterIPs": [addresses::KUBERNETES.to_string()],
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
            },
        }))
        .await?;
        let mirror = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
        self.replace(json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": mirror},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
        }))
        .await?;
        self.replace(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }))
        .await
    }

    fn row_of(&self, object: &Value) -> Result<Arc<Resource>, Status> {
        let api_version = object::text(object, "/apiVersion");
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let kind = object::text(object, "/kind");
        self.registry()
            .by_kind(group, version, kind)
            .cloned()
            .ok_or_else(|| Status::internal(format!("{kind} is not served")))
    }

    /// Makes an object unless it is there.
    async fn ensure(self: &Arc<Self>, mut object: Value) -> Result<(), Status> {
        let row = self.row_of(&object)?;
        let namespace = object::namespace(&object).to_owned();
        let key = row.key(&namespace, object::name(&object));
        if self.store.snapshot().contains(&key) {
            return Ok(());
        }
        metadata::prepare_create(&row, &namespace, &mut object, Timestamp::now())?;
        let hooks = hooks::of(&row);
        (hooks.default)(&mut object);
        let mut writes = vec![Write { key, value: Some(objects::encode(&object)), expect: Expect::Absent }];
        if let Some(hook) = hooks.companions {
            let registry = self.registry();
            writes.extend(hook(self.view(), &object).into_iter().filter_map(|companion| {
                let row = registry.get("", "v1", companion.plural)?;
                let key = row.key(object::namespace(&companion.object), object::name(&companion.object));
                Some(Write { key, value: Some(objects::encode(&companion.object)), expect: Expect::Any })
            }));
        }
        match self.store.commit(writes, row.durability).await {
            Ok(_) | Err(WriteError::Conflict { .. }) => Ok(()),
            Err(error) => Err(Status::unwritten(&error)),
        }
    }

    /// Makes a role or binding, or brings the one that is there up to date: what it lacks is added, what others added
    /// stays. One that says `autoupdate: "false"` is left alone. One that says nothing was made before this was kept,
    /// and becomes what it is now.
    async fn reconcile(self: &Arc<Self>, wanted: Value) -> Result<(), Status> {
        let row = self.row_of(&wanted)?;
        let key = row.key(object::namespace(&wanted), object::name(&wanted));
        let Some(entry) = self.store.get(&key) else { return self.ensure(wanted).await };
        let old = self.trees.of(&entry.value, entry.revision)?;
        let kept = object::annotation(&old, auth::AUTO_UPDATE);
        if kept == Some("false") {
            return Ok(());
        }
        let mut new = (*old).clone();
        for part in ["labels", "annotations"] {
            for (name, value) in wanted["metadata"][part].as_object().into_iter().flatten() {
                new["metadata"][part][name] = value.clone();
            }
        }
        for part in ["rules", "subjects"] {
            if kept.is_none() {
                metadata::keep(&wanted, &mut new, part);
            } else {
                add_missing(&wanted[part], &mut new[part]);
            }
        }
        for part in ["aggregationRule", "roleRef"] {
            metadata::keep(&wanted, &mut new, part);
        }
        object::strip_nulls(&mut new);
        if metadata::is_no_op(&old, &new) {
            return Ok(());
        }
        let stored = objects::encode(&new);
        self.store.put(key, stored, Expect::Any, row.durability).await.map(drop).map_err(Status::internal)
    }

    /// Makes an object, or brings the one that is there to what it says.
    async fn replace(self: &Arc<Self>, object: Value) -> Result<(), Status> {
        let row = self.row_of(&object)?;
        let key = row.key(object::namespace(&object), object::name(&object));
        let Some(entry) = self.store.get(&key) else { return self.ensure(object).await };
        let old = self.trees.of(&entry.value, entry.revision)?;
        let mut new = (*old).clone();
        for field in ["subsets", "endpoints", "ports", "addressType"] {
            metadata::keep(&object, &mut new, field);
        }
        if metadata::is_no_op(&old, &new) {
            return Ok(());
        }
        let stored = objects::encode(&new);
        self.store
            .put(key, stored, Expect::Any, row.durability)
            .await
            .map(drop)
            .map_err(|error| Status::unwritten(&error))
    }
}

/// Adds to a list what of another it has not.
fn add_missing(wanted: &Value, list: &mut Value) {
    for item in wanted.as_array().into_iter().flatten() {
        match list.as_array_mut() {
            Some(list) if list.contains(item) => {}
            Some(list) => list.push(item.clone()),
            None => *list = json!([item]),
        }
    }
}

fn config_map(namespace: &str, name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                // Each part of Knative lives in the namespace of its name.
                "app.kubernetes.io/name": namespace,
                "app.kubernetes.io/component": name.trim_start_matches("config-"),
                "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
            },
        },
        "data": data,
    })
}

/// What a map of Serving's must say from the start: what its validation insists on, and which data plane is there.
fn initial_data(name: &str) -> Value {
    match name {
        "config-deployment" => json!({"queue-sidecar-image": "knoll-queue"}),
        "config-network" => json!({"ingress-class": "knoll.ingress.networking.knative.dev"}),
        _ => json!({}),
    }
}
