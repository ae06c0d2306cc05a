//! ResourceQuotas: what a namespace may hold at most. New objects are checked against them before they are written,
//! and what is used is kept in their status.

mod charge;
mod scope;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use knoll_api::quantity::Quantity;
use knoll_store::{Durability, Expect, Snapshot, Write, WriteError};
use serde_json::{Value, json};

use crate::{ApiServer, object, objects, resources::Resource, status::Status};
use charge::Amounts;

/// What is on its way into namespaces, and whose status is to be brought up to date.
#[derive(Clone, Default)]
pub(crate) struct Quotas {
    claims: Arc<Mutex<BTreeMap<String, Amounts>>>,
    stale: Arc<Mutex<HashSet<String>>>,
}

/// What an object on its way will use. Dropped once the object is written, or will not be.
pub(crate) struct Claim {
    quotas: Quotas,
    key: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.quotas.claims).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn quotas_in(server: &ApiServer, snapshot: &Snapshot, namespace: &str) -> Vec<(Arc<Value>, u64)> {
    let prefix = format!("/core/resourcequotas/{namespace}/");
    let entries = snapshot.range(&prefix, None);
    entries.filter_map(|entry| Some((server.trees.of(&entry.value, entry.revision).ok()?, entry.revision))).collect()
}

fn hard(quota: &Value) -> Amounts {
    let amounts = quota.pointer("/spec/hard").and_then(Value::as_object).into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?))).collect()
}

/// Refuses a new object that a quota of its namespace has no room for. What it returns stands for the object until
/// it is written.
///
/// # Errors
/// 403 that names the quota, what is asked for, used and allowed.
pub(crate) fn check(
    server: &ApiServer,
    resource: &Resource,
    namespace: &str,
    object: &Value,
) -> Result<Option<Claim>, Status> {
    // Held until the claim is made, so that two objects cannot take the same room.
    let mut claims = lock(&server.quotas.claims);
    let snapshot = server.store.snapshot();
    let quotas = quotas_in(server, &snapshot, namespace);
    if quotas.is_empty() {
        return Ok(None);
    }
    let wanted = charge::of(resource, object);
    let mut counted = false;
    for (quota, _) in quotas {
        let hard = hard(&quota);
        if !charge::concerns(resource, &hard) || !scope::covers(&quota, &resource.plural, object) {
            continue;
        }
        let refuse = |why: String| Err(resource.forbidden(object::name(object), &why));
        let unsaid = if is_pods(resource) { charge::unsaid(object, &hard) } else { Vec::new() };
        if !unsaid.is_empty() {
            return refuse(format!("failed quota: {}: must specify {}", object::name(&quota), unsaid.join("; ")));
        }
        counted = true;
        let mut used = used_by(server, &snapshot, resource, namespace, &quota);
        let prefix = resource.key(namespace, "");
        let under_way = claims.iter().filter(|(key, _)| key.starts_with(&prefix) && !snapshot.contains(key));
        under_way.for_each(|(_, amounts)| add(&mut used, amounts));
        let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(Quantity::ZERO);
        let over: Vec<&String> = hard
            .iter()
            .filter(|(name, most)| {
                of(&wanted, name) > Quantity::ZERO && of(&used, name).plus(of(&wanted, name)) > **most
            })
            .map(|(name, _)| name)
            .collect();
        if !over.is_empty() {
            let list = |amounts: &Amounts| {
                let shown: Vec<String> = over.iter().map(|name| format!("{name}={}", of(amounts, name))).collect();
                shown.join(",")
            };
            return refuse(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                object::name(&quota),
                list(&wanted),
                list(&used),
                list(&hard)
            ));
        }
    }
    if !counted {
        return Ok(None);
    }
    let key = resource.key(namespace, object::name(object));
    claims.insert(key.clone(), wanted);
    Ok(Some(Claim { quotas: server.quotas.clone(), key }))
}

fn is_pods(resource: &Resource) -> bool {
    resource.plural == "pods" && resource.group.is_empty()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = entry.plus(*amount);
    }
}

/// What the stored objects of a row count against a quota.
fn used_by(server: &ApiServer, snapshot: &Snapshot, resource: &Resource, namespace: &str, quota: &Value) -> Amounts {
    let mut used = Amounts::new();
    for entry in snapshot.range(&resource.key(namespace, ""), None) {
        let Ok(object) = server.trees.of(&entry.value, entry.revision) else { continue };
        if scope::covers(quota, &resource.plural, &object) {
            add(&mut used, &charge::of(resource, &object));
        }
    }
    used
}

/// Brings the status of a namespace's quotas up to date, soon.
pub(crate) fn refresh(server: &Arc<ApiServer>, namespace: &str) {
    let prefix = format!("/core/resourcequotas/{namespace}/");
    if namespace.is_empty() || server.store.snapshot().keys(&prefix).next().is_none() {
        return;
    }
    if !lock(&server.quotas.stale).insert(namespace.to_owned()) {
        return; // Somebody is about to do it.
    }
    let (server, namespace) = (server.clone(), namespace.to_owned());
    tokio::spawn(async move {
        lock(&server.quotas.stale).remove(&namespace);
        report(&server, &namespace).await;
    });
}

async fn report(server: &Arc<ApiServer>, namespace: &str) {
    let registry = server.registry();
    let Some(row) = registry.get("", "v1", "resourcequotas") else { return };
    let snapshot = server.store.snapshot();
    for (quota, revision) in quotas_in(server, &snapshot, namespace) {
        let hard = hard(&quota);
        let mut used: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
        for resource in registry.rows().filter(|row| row.namespaced && charge::concerns(row, &hard)) {
            for (name, amount) in used_by(server, &snapshot, resource, namespace, &quota) {
                used.entry(name).and_modify(|sum| *sum = sum.plus(amount));
            }
        }
        let shown: BTreeMap<&String, String> = used.iter().map(|(name, amount)| (name, amount.to_string())).collect();
        let status = json!({"hard": quota.pointer("/spec/hard"), "used": shown});
        if quota.get("status") == Some(&status) {
            continue;
        }
        let mut new = (*quota).clone();
        new["status"] = status;
        let write = Write {
            key: row.key(namespace, object::name(&quota)),
            value: Some(objects::to_stored(row, &new)),
            expect: Expect::Revision(revision),
        };
        match server.store.commit(vec![write], Durability::Relaxed).await {
            Ok(_) => {}
            // Who was faster may have counted earlier.
            Err(WriteError::Conflict { .. }) => refresh(server, namespace),
            Err(error) => tracing::warn!(%error, namespace, "keep what a quota's namespace uses"),
        }
    }
}
