//! Sources as their objects say them.
//!
//! The sink is what the status found, and the generation the one that the status speaks of. What cannot be carried out is a
//! source all the same, with why: admission has refused most of that before, but objects may be older than a rule.
//!
//! As whom its events are sent is not among it: a status names an account, too, but whoever may write one could name any other.

mod selector;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Uri;
use jiff::{Timestamp, tz::TimeZone};
use knoll_api::{
    cron,
    duck::{SourceSpec, SourceStatus},
    object::Resource as Object,
    sources::{
        self as api, ApiServerSource, IntegrationSource, PingSource, PingSourceSpec, RESOURCE_MODE, WatchedResource,
    },
};
use knoll_broker::delivery::Destination;
use knoll_event::filter::Filter;

use crate::{ApiServer, Id, Mode, Namespaces, Ping, Resource, Source, Timer, Work, sending::complete, tick};

/// Milliseconds between two events of a timer that says nothing.
const PERIOD: i64 = 1000;
/// Media type of a timer's data where it says nothing.
const TEXT: &str = "text/plain";

impl Source {
    /// A PingSource; nothing before its status says where its events go.
    pub fn of_ping(source: &PingSource) -> Option<Self> {
        assemble(source, &source.spec.source, &source.status, ping(&source.spec).map(Work::Ping))
    }

    /// An IntegrationSource with a timer; nothing for another one, and before its status says where its events go.
    pub fn of_timer(source: &IntegrationSource) -> Option<Self> {
        let work = timer(source.spec.timer.as_ref()?).map(Work::Timer);
        assemble(source, &source.spec.source, &source.status, work)
    }

    /// An ApiServerSource, of which only events that pass `filter` are sent, with `event_source`, the address of the API
    /// server, as their `source`; nothing before its status says where its events go.
    pub fn of_api_server(source: &ApiServerSource, filter: Option<Filter>, event_source: &str) -> Option<Self> {
        let work = api_server(source, filter, event_source).map(Work::ApiServer);
        assemble(source, &source.spec.source, &source.status.source, work)
    }
}

fn assemble<S: Object>(of: &S, spec: &SourceSpec, status: &SourceStatus, work: Result<Work, String>) -> Option<Source> {
    let (sink_uri, generation) = (status.sink_uri.as_ref()?, status.common.observed_generation?);
    let text = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Arc::from);
    let (to, work) = match Destination::read(sink_uri) {
        Ok(to) => (to, work),
        Err(error) => {
            (Destination::new(Uri::default()), Err(format!("status.sinkUri {sink_uri:?} is no URI: {error}")))
        }
    };
    let sink = Destination { ca_certs: text(&status.sink_ca_certs), audience: text(&status.sink_audience), ..to };
    let overrides = spec.ce_overrides.iter().flat_map(|overrides| &overrides.extensions);
    let mut source = Source {
        id: Id::new(S::KIND, of.namespace(), of.name()),
        uid: of.uid().into(),
        generation,
        sink,
        service_account: None,
        extensions: overrides.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
        work: work.map_err(Arc::from),
    };
    if let Err(why) = source.try_out() {
        source.work = Err(why.into());
    }
    Some(source)
}

impl Source {
    /// Makes an event, and throws it away: what breaks a rule is told now rather than at each event.
    fn try_out(&self) -> Result<(), String> {
        let broken = |error: knoll_event::Invalid| error.to_string();
        let mut event = match &self.work {
            Ok(Work::Ping(ping)) => tick::ping_event(&self.id, ping).map_err(broken)?,
            Ok(Work::Timer(timer)) => tick::timer_event(timer).map_err(broken)?,
            Ok(Work::ApiServer(work)) => knoll_event::Event::new("id", &work.event_source, "type").map_err(broken)?,
            Err(_) => return Ok(()),
        };
        complete(&mut event, self, Timestamp::UNIX_EPOCH).map_err(broken)
    }
}

fn ping(spec: &PingSourceSpec) -> Result<Ping, String> {
    let schedule = cron::parse(&spec.schedule).map_err(|why| format!("spec.schedule: {why}"))?;
    let zone = ZONES.of(&spec.timezone).map_err(|why| format!("spec.timezone: {why}"))?;
    let data = if !spec.data_base64.is_empty() {
        let lines: String = spec.data_base64.chars().filter(|sign| !matches!(sign, '\r' | '\n')).collect();
        Some(STANDARD.decode(lines).map_err(|error| format!("spec.dataBase64: {error}"))?.into())
    } else if spec.data.is_empty() {
        None
    } else {
        Some(Bytes::from(spec.data.clone()))
    };
    Ok(Ping { schedule, zone, content_type: spec.content_type.as_str().into(), data })
}

/// Time zones by their names, each of which is kept once however many sources name it, and however they write it.
struct Zones(Mutex<BTreeMap<&'static str, TimeZone>>);

static ZONES: Zones = Zones(Mutex::new(BTreeMap::new()));

impl Zones {
    /// The one of this name, UTC without one.
    fn of(&self, name: &str) -> Result<TimeZone, String> {
        if name.is_empty() {
            return Ok(TimeZone::UTC);
        }
        let mut zones = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = cron::time_zone_name(name)?;
        if let Some(zone) = zones.get(name) {
            return Ok(zone.clone());
        }
        let zone = cron::time_zone(name)?;
        zones.insert(name, zone.clone());
        Ok(zone)
    }
}

fn timer(timer: &api::Timer) -> Result<Timer, String> {
    let period = timer.period.unwrap_or(PERIOD);
    let period = u64::try_from(period).ok().filter(|period| *period > 0);
    let repeat = timer.repeat_count.filter(|count| *count > 0);
    Ok(Timer {
        period: Duration::from_millis(period.ok_or("spec.timer.period: at least 1 millisecond is needed")?),
        message: timer.message.clone().into(),
        content_type: timer.content_type.as_deref().filter(|text| !text.is_empty()).unwrap_or(TEXT).into(),
        repeat: repeat.and_then(|count| u64::try_from(count).ok()),
    })
}

fn api_server(source: &ApiServerSource, filter: Option<Filter>, event_source: &str) -> Result<ApiServer, String> {
    let spec = &source.spec;
    let is_everywhere = spec.namespace_selector.as_ref().is_some_and(selector::is_empty);
    let named = || source.status.namespaces.iter().map(|name| name.as_str().into()).collect();
    let account = Some(spec.service_account_name.as_str()).filter(|name| !name.is_empty());
    let mut resources = spec.resources.iter().map(resource).collect::<Result<Vec<_>, _>>()?;
    resources.sort();
    resources.dedup();
    Ok(ApiServer {
        resources,
        namespaces: if is_everywhere { Namespaces::All } else { Namespaces::Named(named()) },
        owner: spec.owner.as_ref().map(|owner| (owner.api_version.as_str().into(), owner.kind.as_str().into())),
        mode: if spec.mode == RESOURCE_MODE { Mode::Resource } else { Mode::Reference },
        filter,
        watches_as: account.unwrap_or("default").into(),
        event_source: event_source.into(),
    })
}

fn resource(of: &WatchedResource) -> Result<Resource, String> {
    let selector = of.selector.as_ref().map(selector::query).transpose();
    Ok(Resource {
        api_version: of.api_version.as_str().into(),
        kind: of.kind.as_str().into(),
        label_selector: selector
            .map_err(|why| format!("spec.resources[{}].selector: {why}", of.kind))?
            .unwrap_or_default()
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_is_kept_once_however_it_is_written() {
        let zones = Zones(Mutex::default());
        for name in ["Europe/Zurich", "europe/zurich", "EUROPE/ZURICH", "eUrOpE/zUrIcH", "Asia/Tokyo", ""] {
            zones.of(name).expect("there is one");
        }
        zones.of("Moon/Base").expect_err("there is none");
        assert_eq!(zones.0.lock().expect("no panic").keys().collect::<Vec<_>>(), [&"Asia/Tokyo", &"Europe/Zurich"]);
    }
}
