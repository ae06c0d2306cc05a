//! ResourceQuotas: what a namespace may hold at most. Writes that use more are checked against them, and what is used
//! is kept in their status.

mod charge;
mod keep;
mod scope;

use std::sync::Arc;

use knoll_api::quantity::Quantity;
use knoll_store::Snapshot;
use serde_json::Value;

use crate::{
    breath::Breath,
    claims::{Amounts, Claim},
    object,
    objects::Trees,
    resources::Resource,
    status::Status,
    view::View,
};

fn quotas_in(trees: &Trees, snapshot: &Snapshot, namespace: &str) -> Vec<(Arc<Value>, u64)> {
    let prefix = format!("/core/resourcequotas/{namespace}/");
    let entries = snapshot.range(&prefix, None);
    entries.filter_map(|entry| Some((trees.of(&entry.value, entry.revision).ok()?, entry.revision))).collect()
}

fn hard(quota: &Value) -> Amounts {
    let amounts = quota.pointer("/spec/hard").and_then(Value::as_object).into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?))).collect()
}

/// Refuses a write that a quota of its namespace has no room for: a new object, or a change that uses more. What it
/// returns stands for the object until it is written. In a namespace with a quota it counts the objects of that kind
/// there, and reads them where the quota is of more than their number; in others it looks at nothing.
///
/// # Errors
/// 403 that names the quota, what is asked for, used and allowed.
pub(crate) async fn check(
    view: View<'_>,
    resource: &Resource,
    namespace: &str,
    old: Option<&Value>,
    object: &Value,
) -> Result<Option<Claim>, Status> {
    let wanted = increase(resource, old, object);
    if wanted.is_empty() || !is_limited(view, namespace) {
        return Ok(None);
    }
    // Held until the claim is made, so that two objects cannot take the same room.
    let claims = view.claims().decide(namespace).await;
    let (trees, snapshot) = (view.trees(), view.snapshot());
    let mut counted = false;
    for (quota, _) in quotas_in(trees, &snapshot, namespace) {
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
        let mut used = used_by(trees, &snapshot, resource, namespace, (&quota, &hard)).await;
        let prefix = resource.key(namespace, "");
        claims.under_way(&prefix, &snapshot).iter().for_each(|amounts| add(&mut used, amounts));
        if let Some(why) = excess(&quota, &hard, &wanted, &used) {
            return refuse(why);
        }
    }
    if !counted {
        return Ok(None);
    }
    let over = old.and_then(|old| object::resource_version(old).parse().ok());
    Ok(Some(claims.claim(resource.key(namespace, object::name(object)), over, wanted)))
}

/// Whether a namespace has a quota.
fn is_limited(view: View<'_>, namespace: &str) -> bool {
    view.snapshot().keys(&format!("/core/resourcequotas/{namespace}/")).next().is_some()
}

/// What the object counts beyond what it counted before.
fn increase(resource: &Resource, old: Option<&Value>, object: &Value) -> Amounts {
    let mut wanted = charge::of(resource, object);
    let before = old.map(|old| charge::of(resource, old)).unwrap_or_default();
    for (name, amount) in &mut wanted {
        *amount = amount.minus(before.get(name).copied().unwrap_or(Quantity::ZERO));
    }
    wanted.retain(|_, amount| *amount > Quantity::ZERO);
    wanted
}

/// Says what there is no room for; `None` when there is room.
fn excess(quota: &Value, hard: &Amounts, wanted: &Amounts, used: &Amounts) -> Option<String> {
    let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(Quantity::ZERO);
    let exceeds = |(name, most): &(&String, &Quantity)| {
        of(wanted, name) > Quantity::ZERO && of(used, name).plus(of(wanted, name)) > **most
    };
    let over: Vec<&String> = hard.iter().filter(exceeds).map(|(name, _)| name).collect();
    if over.is_empty() {
        return None;
    }
    let list = |amounts: &Amounts| {
        let shown: Vec<String> = over.iter().map(|name| format!("{name}={}", of(amounts, name))).collect();
        shown.join(",")
    };
    Some(format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        object::name(quota),
        list(wanted),
        list(used),
        list(hard)
    ))
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

/// What the stored objects of a row count against a quota, whose hard limits these are. Lets others have the thread.
async fn used_by(
    trees: &Trees,
    snapshot: &Snapshot,
    resource: &Resource,
    namespace: &str,
    (quota, hard): (&Value, &Amounts),
) -> Amounts {
    let prefix = resource.key(namespace, "");
    if scope::covers_all(quota) && charge::is_number(resource, hard) {
        return charge::number(resource, snapshot.count(&prefix));
    }
    let (mut used, mut breath) = (Amounts::new(), Breath::default());
    for entry in snapshot.range(&prefix, None) {
        breath.after(entry.value.len()).await;
        let Ok(object) = trees.of(&entry.value, entry.revision) else { continue };
        if scope::covers(quota, &resource.plural, &object) {
            add(&mut used, &charge::of(resource, &object));
        }
    }
    used
}
