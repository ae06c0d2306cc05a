//! LimitRanges: what containers ask for when they say nothing, and the bounds of what they may ask for.

use std::collections::BTreeMap;

use knoll_api::quantity::Quantity;
use serde_json::{Map, Value};

use super::{Admission, Operation};
use crate::{object, status::Status};

const NOTE: &str = "kubernetes.io/limit-ranger";

/// An amount, and the text it was written as.
#[derive(Clone)]
struct Amount {
    value: Quantity,
    text: String,
}

type Amounts = BTreeMap<String, Amount>;

fn amount(value: &Value) -> Option<Amount> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Quantity::parse(&text).ok().map(|value| Amount { value, text })
}

fn amounts(map: &Value) -> Amounts {
    let pairs = map.as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), amount(value)?))).collect()
}

/// The bounds for one type of thing in one LimitRange.
struct Bounds {
    of: String,
    default: Amounts,
    default_request: Amounts,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

impl Bounds {
    fn read(item: &Value) -> Self {
        let [min, max, ratio] = ["min", "max", "maxLimitRequestRatio"].map(|field| amounts(&item[field]));
        let [mut default, mut request] = ["default", "defaultRequest"].map(|field| amounts(&item[field]));
        let of = object::text(item, "/type").to_owned();
        if of == "Container" {
            // As Kubernetes fills in what a LimitRange leaves out.
            for (name, most) in &max {
                default.entry(name.clone()).or_insert_with(|| most.clone());
            }
            for (name, wanted) in default.iter().chain(&min) {
                request.entry(name.clone()).or_insert_with(|| wanted.clone());
            }
        }
        Self { of, default, default_request: request, min, max, ratio }
    }

    /// What breaks them.
    fn check(&self, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
        for (name, bound) in &self.min {
            let head = format!("minimum {name} usage per {} is {}", self.of, bound.text);
            match requests.get(name) {
                None => errors.push(format!("{head}.  No request is specified")),
                Some(request) if request.value < bound.value => {
                    errors.push(format!("{head}, but request is {}", request.text));
                }
                Some(_) => errors.extend(
                    limits
                        .get(name)
                        .filter(|limit| limit.value < bound.value)
                        .map(|limit| format!("{head}, but limit is {}", limit.text)),
                ),
            }
        }
        for (name, bound) in &self.max {
            let head = format!("maximum {name} usage per {} is {}", self.of, bound.text);
            match limits.get(name) {
                // A claim has no limit, only a request.
                None if self.of != "PersistentVolumeClaim" => errors.push(format!("{head}.  No limit is specified")),
                Some(limit) if limit.value > bound.value => {
                    errors.push(format!("{head}, but limit is {}", limit.text));
                }
                _ => errors.extend(
                    requests
                        .get(name)
                        .filter(|request| request.value > bound.value)
                        .map(|request| format!("{head}, but request is {}", request.text)),
                ),
            }
        }
        for (name, bound) in &self.ratio {
            errors.extend(ratio(name, &self.of, bound, requests.get(name), limits.get(name)));
        }
    }
}

/// How many times its request a limit may be.
fn ratio(name: &str, of: &str, bound: &Amount, request: Option<&Amount>, limit: Option<&Amount>) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {of} is {}", bound.text);
    let set = |amount: Option<&Amount>| amount.map(|a| a.value.nano()).filter(|nano| *nano > 0);
    let Some(request) = set(request) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = set(limit) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    // limit / request > bound, without dividing: the bound is in nano-units, too.
    let over = limit.saturating_mul(1_000_000_000) > bound.value.nano().saturating_mul(request);
    #[expect(clippy::cast_precision_loss, reason = "shown to people, six digits of it")]
    let shown = limit as f64 / request as f64;
    over.then(|| format!("{head}, but provided ratio is {shown:.6}"))
}

/// The LimitRanges of the namespace, in order of their names.
fn bounds(admission: &Admission<'_>) -> Vec<Bounds> {
    let prefix = format!("/core/limitranges/{}/", admission.namespace);
    let snapshot = admission.view.snapshot();
    let trees = snapshot.range(&prefix, None).filter_map(|entry| admission.view.tree(&entry));
    trees.flat_map(|tree| object::list(&tree, "/spec/limits").iter().map(Bounds::read).collect::<Vec<_>>()).collect()
}

/// Gives a new pod's containers what the namespace's LimitRanges say, and refuses what they do not allow.
pub(super) fn pod(admission: &Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    let bounds = bounds(admission);
    if bounds.is_empty() || admission.operation == Operation::Update {
        return Ok(());
    }
    let mut notes = Vec::new();
    for of_containers in bounds.iter().filter(|one| one.of == "Container") {
        for (list, what) in [("initContainers", "init container"), ("containers", "container")] {
            let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                fill(container, what, of_containers, &mut notes);
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        object::map_at(&mut pod["metadata"], "annotations").insert(NOTE.into(), note.into());
    }
    let mut errors = Vec::new();
    for one in &bounds {
        match one.of.as_str() {
            "Container" => {
                for container in ["/spec/initContainers", "/spec/containers"].iter().flat_map(|l| object::list(pod, l))
                {
                    let resources = &container["resources"];
                    one.check(&amounts(&resources["requests"]), &amounts(&resources["limits"]), &mut errors);
                }
            }
            "Pod" => one.check(&sum(pod, "requests"), &sum(pod, "limits"), &mut errors),
            _ => {}
        }
    }
    refuse(admission, pod, &errors)
}

/// Refuses a claim for more or less storage than the namespace's LimitRanges allow.
pub(crate) fn claim(admission: &mut Admission<'_>, claim: &mut Value) -> Result<(), Status> {
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    let mut errors = Vec::new();
    for one in bounds(admission).iter().filter(|one| one.of == "PersistentVolumeClaim") {
        one.check(&requests, &Amounts::new(), &mut errors);
    }
    refuse(admission, claim, &errors)
}

fn refuse(admission: &Admission<'_>, object: &Value, errors: &[String]) -> Result<(), Status> {
    let why = match errors {
        [] => return Ok(()),
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    Err(admission.resource.forbidden(object::name(object), &why))
}

fn fill(container: &mut Value, what: &str, bounds: &Bounds, notes: &mut Vec<String>) {
    let name = object::name_of(container).to_owned();
    let resources = object::map_at(container, "resources");
    for (kind, defaults) in [("request", &bounds.default_request), ("limit", &bounds.default)] {
        let set = missing(resources, &format!("{kind}s"), defaults);
        if !set.is_empty() {
            notes.push(format!("{} {kind} for {what} {name}", set.join(", ")));
        }
    }
}

/// Adds what is not there; the names of what was added.
fn missing(resources: &mut Map<String, Value>, list: &str, defaults: &Amounts) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults {
        let amounts = resources.entry(list).or_insert_with(|| Value::Object(Map::new()));
        if amounts.get(name).is_none() && amounts.is_object() {
            amounts[name] = amount.text.as_str().into();
            set.push(name.clone());
        }
    }
    set
}

/// What all containers of a pod ask for together: those that run before the others count by the largest.
fn sum(pod: &Value, list: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in object::list(pod, "/spec/containers") {
        for (name, amount) in amounts(&container["resources"][list]) {
            let value = total.get(&name).map_or(amount.value, |sum: &Amount| sum.value.plus(amount.value));
            total.insert(name, Amount { text: value.to_string(), value });
        }
    }
    for container in object::list(pod, "/spec/initContainers") {
        for (name, amount) in amounts(&container["resources"][list]) {
            if total.get(&name).is_none_or(|sum| sum.value < amount.value) {
                total.insert(name, amount);
            }
        }
    }
    total
}
