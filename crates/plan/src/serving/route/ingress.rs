//! Route → Ingress: a rule for each name inside, and one outside where it shows; splits by percent.

use std::{collections::BTreeMap, time::Duration};

use knoll_api::{
    Resource, Timestamp,
    conditions::TRUE,
    config::HttpProtocol,
    duration,
    k8s_openapi::apimachinery::pkg::util::intstr::IntOrString,
    labels::{LAST_APPLIED, networking, serving as keys},
    names,
    networking::{
        CLUSTER_LOCAL, EXTERNAL_IP, HeaderMatch, HttpIngressPath, HttpIngressRule, Ingress, IngressRule, IngressSpec,
        IngressSplit,
    },
    serving::Route,
};

use super::{
    ALL_TRAFFIC_ASSIGNED, Hidden, INGRESS_READY, Made, Stopped, bad_name,
    certificates::Tls,
    domains,
    rollout::Rollout,
    traffic::{Target, Traffic},
};
use crate::{
    EventType, Plan, World,
    children::{Map, annotations, child_of, labels, map, union, without},
    status::Reporting,
};

const REVISION_HEADER: &str = "Knative-Serving-Revision";
const NAMESPACE_HEADER: &str = "Knative-Serving-Namespace";
const TAG_HEADER: &str = "Knative-Serving-Tag";
const DEFAULT_ROUTE_HEADER: &str = "Knative-Serving-Default-Route";
const ROLLOUT_DURATION_OLD: &str = "serving.knative.dev/rolloutDuration";

/// Makes the Ingress of `next` as it should be now.
pub(super) fn reconcile(
    world: &World,
    next: &mut Route,
    traffic: &Traffic,
    hidden: &Hidden,
    tls: &Tls,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<Made, Stopped> {
    let name = names::child(next.name(), "");
    let existing = world.ingresses.get(&next.key().sibling(&name));
    let (rollout, next_step) = match existing {
        Some(ref ingress) => roll(world, next, traffic, ingress, now),
        None => (Rollout::finished(traffic), None),
    };
    let template = make(world, next, name, traffic, &rollout, hidden, tls).map_err(|bad| bad.report(next, now))?;
    let Some(existing) = existing else {
        let note = format!("Created Ingress \"{}\"", template.name());
        plan.create(template);
        plan.event(next, EventType::Normal, "Created", note);
        return Ok(Made { settled: None, rollout, next_step });
    };
    if !existing.is_controlled_by(next) {
        let message = crate::children::not_owned("Ingress", existing.name());
        next.conditions(now).mark_false(INGRESS_READY, "NotOwned", &message);
        return Err(Stopped);
    }
    let mut wanted = Ingress::clone(&existing);
    wanted.metadata.labels = template.metadata.labels;
    wanted.metadata.annotations = template.metadata.annotations;
    wanted.spec = template.spec;
    let settled = (wanted.spec == existing.spec).then(|| existing.clone());
    plan.update(existing.as_ref(), wanted);
    Ok(Made { settled, rollout, next_step })
}

/// Why an Ingress could not be made.
enum Unmakeable {
    Name(String),
    HttpOption(String),
}

impl Unmakeable {
    fn report(&self, next: &mut Route, now: Timestamp) -> Stopped {
        match self {
            Unmakeable::Name(why) => bad_name(next, why, now),
            Unmakeable::HttpOption(why) => {
                next.conditions(now).mark_unknown(ALL_TRAFFIC_ASSIGNED, "Unknown", why);
                Stopped
            }
        }
    }
}

/// The rollout that the Ingress is to carry now.
fn roll(
    world: &World,
    route: &Route,
    traffic: &Traffic,
    ingress: &Ingress,
    now: Timestamp,
) -> (Rollout, Option<Duration>) {
    let goal = Rollout::finished(traffic);
    let annotated = route.annotation(keys::ROLLOUT_DURATION).or_else(|| route.annotation(ROLLOUT_DURATION_OLD));
    let annotated = annotated.and_then(|text| duration::parse(text).ok()).map(duration::to_std);
    let whole = annotated.filter(|d| d.as_secs() > 0).unwrap_or(world.config.network.rollout_duration);
    if whole.is_zero() {
        return (goal, None);
    }
    let mut before = ingress.annotation(networking::ROLLOUT).and_then(Rollout::read);
    let carried = route.condition(INGRESS_READY).is_some_and(|ready| ready.status == TRUE);
    if let Some(before) = &mut before
        && ingress.is_ready()
        && !carried
    {
        before.observe_ready(now, whole);
    }
    goal.step(before, now)
}

fn make(
    world: &World,
    route: &Route,
    name: String,
    traffic: &Traffic,
    rollout: &Rollout,
    hidden: &Hidden,
    tls: &Tls,
) -> Result<Ingress, Unmakeable> {
    let (rules, hosts) = rules(world, route, traffic, rollout, hidden, tls).map_err(Unmakeable::Name)?;
    let http_option = http_option(world, route).map_err(Unmakeable::HttpOption)?;
    let own = map([(keys::ROUTE, route.name()), (keys::ROUTE_NAMESPACE, route.namespace())]);
    let rollout = serde_json::to_string(rollout).expect("a rollout has string keys and whole numbers only");
    let class = ingress_class(world, route);
    let base = map([(networking::INGRESS_CLASS, class), (networking::ROLLOUT, &rollout)]);
    let mut annotations = without_excluded(union(base, annotations(route)));
    if !hosts.is_empty() {
        let hosts = serde_json::to_string(&hosts).expect("host names by tag");
        annotations.insert(networking::TAG_TO_HOST.to_owned(), hosts);
    }
    Ok(Ingress {
        metadata: child_of(route, name, union(labels(route), own), annotations),
        spec: IngressSpec { http_option, rules, tls: tls.secrets.clone() },
        ..Ingress::default()
    })
}

/// The data plane that an object asks for.
pub(crate) fn ingress_class<'a, R: Resource>(world: &'a World, object: &'a R) -> &'a str {
    let asked = object.annotation(networking::INGRESS_CLASS);
    let asked = asked.or_else(|| object.annotation("networking.knative.dev/ingress-class"));
    asked.unwrap_or(&world.config.network.ingress_class)
}

/// Without the annotations that no Ingress takes over.
pub(crate) fn without_excluded(annotations: Map) -> Map {
    without(annotations, |key| [LAST_APPLIED, keys::ROLLOUT_DURATION, ROLLOUT_DURATION_OLD].contains(&key))
}

/// What plain http gets.
pub(crate) fn http_option<R: Resource>(world: &World, object: &R) -> Result<String, String> {
    let asked = object.annotation("networking.knative.dev/httpOption");
    let asked = asked.or_else(|| object.annotation("networking.knative.dev/http-protocol"));
    let option = match asked.map(str::to_ascii_lowercase).as_deref() {
        Some("enabled") => "Enabled",
        Some("redirected") => "Redirected",
        Some(other) => return Err(format!("incorrect http-protocol annotation: {other}")),
        None => match world.config.network.http_protocol {
            HttpProtocol::Enabled => "Enabled",
            HttpProtocol::Redirected => "Redirected",
            HttpProtocol::Disabled => "",
        },
    };
    Ok(option.to_owned())
}

type HostsByTag = BTreeMap<String, Vec<String>>;

fn rules(
    world: &World,
    route: &Route,
    traffic: &Traffic,
    rollout: &Rollout,
    hidden: &Hidden,
    tls: &Tls,
) -> Result<(Vec<IngressRule>, HostsByTag), String> {
    let (mut rules, mut by_tag) = (Vec::new(), HostsByTag::new());
    let by_header = world.config.features.tag_header_based_routing.is_enabled();
    for (tag, targets) in &traffic.names {
        let name = domains::tagged_name(world, route, tag)?;
        let shows = !hidden.get(tag).copied().unwrap_or_default();
        for local in [true, false].into_iter().filter(|local| *local || shows) {
            let mut paths = vec![path(world, route, tag, targets, rollout)];
            if by_header {
                add_header_routing(world, route, tag, traffic, rollout, &mut paths);
            }
            let hosts: Vec<String> = domains::hosts(world, route, &name, local)?.into_iter().collect();
            if !tag.is_empty() {
                by_tag.entry(tag.clone()).or_default().push(domains::host(world, route, &name, local)?);
            }
            if !local {
                paths.splice(0..0, hosts.iter().flat_map(|host| tls.challenge_paths(host)));
            }
            rules.push(IngressRule {
                hosts,
                visibility: if local { CLUSTER_LOCAL } else { EXTERNAL_IP }.to_owned(),
                http: Some(HttpIngressRule { paths }),
            });
        }
    }
    Ok((rules, by_tag))
}

fn path(world: &World, route: &Route, tag: &str, targets: &[Target], rollout: &Rollout) -> HttpIngressPath {
    let splits = targets.iter().filter(|target| target.percent != 0).flat_map(|target| {
        let rolling = rollout.find(tag, &target.configuration).filter(|_| target.latest == Some(true));
        let shares = match rolling.filter(|rolling| rolling.revisions.len() > 1) {
            Some(rolling) => rolling.revisions.iter().map(|s| (s.revision_name.clone(), s.percent)).collect(),
            None => vec![(target.revision.clone(), target.percent)],
        };
        shares.into_iter().map(|(revision, percent)| split(world, route, target, revision, percent))
    });
    HttpIngressPath { splits: splits.collect(), ..HttpIngressPath::default() }
}

fn split(world: &World, route: &Route, target: &Target, revision: String, percent: i64) -> IngressSplit {
    let port = match (world.config.network.system_internal_tls, target.h2c) {
        (true, _) => 443,
        (false, true) => 81,
        (false, false) => 80,
    };
    IngressSplit {
        service_namespace: route.namespace().to_owned(),
        append_headers: map([(REVISION_HEADER, revision.as_str()), (NAMESPACE_HEADER, route.namespace())]),
        service_name: revision,
        service_port: IntOrString::Int(port),
        percent,
    }
}

/// A header may choose the tag; requests say how they were routed.
fn add_header_routing(
    world: &World,
    route: &Route,
    tag: &str,
    traffic: &Traffic,
    rollout: &Rollout,
    paths: &mut Vec<HttpIngressPath>,
) {
    let base = &mut paths[0].append_headers;
    if !tag.is_empty() {
        base.insert(TAG_HEADER.to_owned(), tag.to_owned());
        return;
    }
    base.insert(DEFAULT_ROUTE_HEADER.to_owned(), "true".to_owned());
    let tagged = traffic.names.iter().filter(|(tag, _)| !tag.is_empty()).map(|(tag, targets)| {
        let mut path = path(world, route, tag, targets, rollout);
        path.headers.insert(TAG_HEADER.to_owned(), HeaderMatch { exact: tag.clone() });
        path
    });
    let tagged: Vec<_> = tagged.collect();
    paths.splice(0..0, tagged);
}
