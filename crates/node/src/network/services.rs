//! Services: where their addresses lead, and what names and variables are made from them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use knoll_api::Key;
use knoll_container::network::{ServiceRule, Transport};
use tokio::sync::{mpsc, watch};

use super::dns::{Names, ServiceNames};
use crate::feed::{self, Change, Subject};
use crate::shared::{ServiceIndex, Shared};

/// How long changes are gathered before they take effect.
const GATHER: Duration = Duration::from_millis(5);
/// Pause before addresses that could not be put into force are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Changes that wait; more wait in the API server.
const QUEUE: usize = 256;
/// Label of a slice: its Service.
const OF_SERVICE: &str = "kubernetes.io/service-name";

/// Services and their endpoints.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    services: BTreeMap<Key, Arc<Service>>,
    /// By namespace and Service, then by name of the slice, without metadata.
    slices: BTreeMap<Key, BTreeMap<String, EndpointSlice>>,
}

/// The machine's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// As others see it.
    pub address: Ipv4Addr,
    /// As its pods see it.
    pub gateway: Ipv4Addr,
}

impl Directory {
    /// Takes a Service, or forgets it.
    pub fn put_service(&mut self, key: Key, service: Option<Arc<Service>>) {
        match service {
            Some(service) => drop(self.services.insert(key, service)),
            None => drop(self.services.remove(&key)),
        }
    }

    /// Takes a slice, or forgets it. A slice of no Service says nothing.
    pub fn put_slice(&mut self, slice: EndpointSlice, gone: bool) {
        let meta = &slice.metadata;
        let Some(service) = meta.labels.as_ref().and_then(|l| l.get(OF_SERVICE)) else { return };
        let of = Key::new(meta.namespace.clone().unwrap_or_default(), service.clone());
        let name = meta.name.clone().unwrap_or_default();
        if gone {
            if let Some(slices) = self.slices.get_mut(&of) {
                slices.remove(&name);
                if slices.is_empty() {
                    self.slices.remove(&of);
                }
            }
        } else {
            let slice = EndpointSlice { metadata: ObjectMeta::default(), ..slice };
            self.slices.entry(of).or_default().insert(name, slice);
        }
    }

    /// Where every Service address leads, ordered.
    pub fn rules(&self, host: Host) -> Vec<ServiceRule> {
        let mut rules = Vec::new();
        for (key, service) in &self.services {
            let Some(spec) = &service.spec else { continue };
            let by_client = spec.session_affinity.as_deref() == Some("ClientIP");
            for port in spec.ports.iter().flatten() {
                let Some(protocol) = transport(port.protocol.as_deref()) else { continue };
                let addresses = addresses(service, port, host);
                if addresses.is_empty() {
                    continue;
                }
                let endpoints = self.endpoints(key, service, port);
                let rule = |service| ServiceRule { service, protocol, endpoints: endpoints.clone(), by_client };
                rules.extend(addresses.into_iter().map(rule));
            }
        }
        rules.sort();
        rules.dedup_by(|a, b| (a.service, a.protocol) == (b.service, b.protocol));
        rules
    }

    fn endpoints(&self, key: &Key, service: &Service, port: &ServicePort) -> Vec<SocketAddrV4> {
        let unready_too = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
        let mut list = Vec::new();
        for slice in self.slices.get(key).into_iter().flat_map(BTreeMap::values) {
            let matching = slice.ports.iter().flatten().filter(|p| {
                p.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                    && p.protocol.as_deref().unwrap_or("TCP") == port.protocol.as_deref().unwrap_or("TCP")
            });
            let numbers: Vec<u16> = matching.filter_map(|p| u16::try_from(p.port?).ok()).collect();
            let ready = slice.endpoints.iter().filter(|e| unready_too || is_ready(e));
            for address in ready.flat_map(|e| &e.addresses).filter_map(|a| a.parse::<Ipv4Addr>().ok()) {
                list.extend(numbers.iter().map(|port| SocketAddrV4::new(address, *port)));
            }
        }
        list.sort();
        list.dedup();
        list
    }

    /// What names stand for.
    pub fn names(&self) -> Names {
        let names = self.services.iter().filter_map(|(key, service)| {
            let spec = service.spec.as_ref()?;
            let ports = spec.ports.iter().flatten().filter_map(|p| {
                let protocol = p.protocol.as_deref().unwrap_or("TCP").to_lowercase();
                Some((p.name.clone().unwrap_or_default(), protocol, u16::try_from(p.port).ok()?))
            });
            let ports = ports.collect();
            let names = if spec.type_.as_deref() == Some("ExternalName") {
                ServiceNames::Alias(spec.external_name.clone().unwrap_or_default().trim_end_matches('.').to_lowercase())
            } else if let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) {
                ServiceNames::Address { address, ports }
            } else {
                ServiceNames::Headless { members: self.members(key, service), ports }
            };
            Some((key.clone(), names))
        });
        Names { services: names.collect() }
    }

    /// The endpoints of a headless Service: host name, where one is set, and address.
    fn members(&self, key: &Key, service: &Service) -> Vec<(Option<String>, Ipv4Addr)> {
        let unready_too = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        let ready = slices.flat_map(|s| &s.endpoints).filter(|e| unready_too || is_ready(e));
        let mut list: Vec<_> = ready
            .flat_map(|e| e.addresses.iter().map(|a| (e.hostname.clone(), a)))
            .filter_map(|(name, a)| Some((name, a.parse().ok()?)))
            .collect();
        list.sort();
        list.dedup();
        list
    }

    /// Services by namespace.
    fn index(&self) -> ServiceIndex {
        let mut index = ServiceIndex::new();
        for (key, service) in &self.services {
            index.entry(key.namespace.clone()).or_default().push(Arc::clone(service));
        }
        index
    }
}

/// A Service with nothing but its name and what it asks for: every Service there is stays in memory.
fn lean(service: Service) -> Service {
    let ObjectMeta { namespace, name, .. } = service.metadata;
    Service { metadata: ObjectMeta { namespace, name, ..ObjectMeta::default() }, spec: service.spec, status: None }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

fn transport(protocol: Option<&str>) -> Option<Transport> {
    match protocol {
        None | Some("TCP" | "") => Some(Transport::Tcp),
        Some("UDP") => Some(Transport::Udp),
        Some(_) => None,
    }
}

/// Every address and port under which clients reach a Service's port.
fn addresses(service: &Service, port: &ServicePort, host: Host) -> Vec<SocketAddrV4> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Ok(number) = u16::try_from(port.port) else { return Vec::new() };
    let parse = |text: &String| text.parse::<Ipv4Addr>().ok();
    let mut list: Vec<_> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .chain(spec.external_ips.iter().flatten())
        .filter_map(parse)
        // What the machine itself listens on must stay with it.
        .filter(|ip| *ip != host.address && *ip != host.gateway)
        .map(|ip| SocketAddrV4::new(ip, number))
        .collect();
    if let Some(node_port) = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0) {
        list.extend([host.address, host.gateway].map(|ip| SocketAddrV4::new(ip, node_port)));
    }
    list.sort();
    list.dedup();
    list
}

/// Keeps addresses, names and variables up to date, for ever.
pub(crate) async fn run(
    shared: Arc<Shared>,
    index: watch::Sender<Option<Arc<ServiceIndex>>>,
    names: watch::Sender<Arc<Names>>,
) {
    let (to_services, mut services) = mpsc::channel(QUEUE);
    let (to_slices, mut slices) = mpsc::channel(QUEUE);
    let client = shared.api.0.clone();
    let subject = |path: &str| Subject { path: path.into(), field_selector: None };
    let follow_services = feed::follow(client.clone(), subject("/api/v1/services"), to_services);
    let follow_slices = feed::follow(client, subject("/apis/discovery.k8s.io/v1/endpointslices"), to_slices);
    let apply = async {
        let mut state = State { shared: &shared, directory: Directory::default(), known: (false, false), rules: None };
        let mut wait = None;
        loop {
            let pause = wait.take();
            let mut services_changed = false;
            let mut until = None;
            loop {
                // The first change opens a short time in which others are gathered.
                let end = async {
                    match (until, pause) {
                        (Some(until), _) => tokio::time::sleep_until(until).await,
                        (None, Some(pause)) => tokio::time::sleep(pause).await,
                        (None, None) => std::future::pending().await,
                    }
                };
                tokio::select! {
                    Some(change) = services.recv() => {
                        state.take_service(change);
                        services_changed = true;
                    }
                    Some(change) = slices.recv() => state.take_slice(change),
                    () = end => break,
                }
                until.get_or_insert(tokio::time::Instant::now() + GATHER);
            }
            if services_changed {
                index.send_replace(Some(Arc::new(state.directory.index())));
            }
            if state.known == (true, true) {
                names.send_replace(Arc::new(state.directory.names()));
                wait = state.enforce().await;
            }
        }
    };
    tokio::join!(follow_services, follow_slices, apply);
}

struct State<'a> {
    shared: &'a Shared,
    directory: Directory,
    /// Whether Services and slices were listed.
    known: (bool, bool),
    rules: Option<Vec<ServiceRule>>,
}

impl State<'_> {
    fn take_service(&mut self, change: Change<Service>) {
        let key = |s: &Service| {
            Key::new(s.metadata.namespace.clone().unwrap_or_default(), s.metadata.name.clone().unwrap_or_default())
        };
        match change {
            Change::All(all) => {
                self.known.0 = true;
                self.directory.services = all.into_iter().map(|s| (key(&s), Arc::new(lean(s)))).collect();
            }
            Change::Put(s) => self.directory.put_service(key(&s), Some(Arc::new(lean(s)))),
            Change::Gone(s) => self.directory.put_service(key(&s), None),
        }
    }

    fn take_slice(&mut self, change: Change<EndpointSlice>) {
        match change {
            Change::All(all) => {
                self.known.1 = true;
                self.directory.slices.clear();
                all.into_iter().for_each(|slice| self.directory.put_slice(slice, false));
            }
            Change::Put(slice) => self.directory.put_slice(slice, false),
            Change::Gone(slice) => self.directory.put_slice(slice, true),
        }
    }

    /// Puts changed rules into force. Returns when to try again.
    async fn enforce(&mut self) -> Option<Duration> {
        let host = Host { address: self.shared.config.address, gateway: self.shared.config.gateway };
        let rules = self.directory.rules(host);
        if self.rules.as_ref() == Some(&rules) {
            return None;
        }
        let (set, given) = (Arc::clone(&self.shared.callbacks.set_services), rules.clone());
        match tokio::task::spawn_blocking(move || set(given)).await {
            Ok(Ok(())) => {
                self.rules = Some(rules);
                None
            }
            Ok(Err(error)) => {
                tracing::warn!(error, "the addresses of Services are not in force");
                Some(RETRY)
            }
            Err(error) => {
                tracing::error!(%error, "the addresses of Services are not in force");
                Some(RETRY)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOST: Host = Host { address: Ipv4Addr::new(192, 0, 2, 1), gateway: Ipv4Addr::new(169, 254, 77, 1) };

    fn directory(services: Value, slices: Value) -> Directory {
        let mut directory = Directory::default();
        let services: Vec<Service> = serde_json::from_value(services).expect("services");
        for service in services {
            let key = Key::new("ns", service.metadata.name.clone().expect("a name"));
            directory.put_service(key, Some(Arc::new(service)));
        }
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).expect("slices");
        slices.into_iter().for_each(|slice| directory.put_slice(slice, false));
        directory
    }

    fn slice(endpoints: Value) -> Value {
        json!([{"metadata": {"name": "s-1", "namespace": "ns", "labels": {OF_SERVICE: "s"}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints}])
    }

    fn shown(rules: &[ServiceRule]) -> Vec<String> {
        let show = |r: &ServiceRule| {
            let to: Vec<_> = r.endpoints.iter().map(ToString::to_string).collect();
            format!("{} {:?} -> {}", r.service, r.protocol, to.join(","))
        };
        rules.iter().map(show).collect()
    }

    #[test]
    fn addresses_lead_to_ready_endpoints_of_the_port_of_that_name() {
        let services = json!([{"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "externalIPs": ["192.0.2.1", "192.0.2.7"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "other", "port": 81}]}}]);
        let endpoints = json!([{"addresses": ["10.244.0.6"]}, {"addresses": ["10.244.0.5"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.7"], "conditions": {"ready": false}}]);
        assert_eq!(
            shown(&directory(services, slice(endpoints)).rules(HOST)),
            [
                "10.96.0.9:80 Tcp -> 10.244.0.5:8080,10.244.0.6:8080",
                "10.96.0.9:81 Tcp -> ",
                "169.254.77.1:30080 Tcp -> 10.244.0.5:8080,10.244.0.6:8080",
                "192.0.2.1:30080 Tcp -> 10.244.0.5:8080,10.244.0.6:8080",
                "192.0.2.7:80 Tcp -> 10.244.0.5:8080,10.244.0.6:8080",
                "192.0.2.7:81 Tcp -> ",
            ]
        );
    }

    #[test]
    fn names_stand_for_addresses_members_or_aliases() {
        let services = json!([
            {"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}},
            {"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}},
            {"metadata": {"name": "x"}, "spec": {"type": "ExternalName", "externalName": "Gw.NS.svc.cluster.local."}}]);
        let names = directory(services, slice(json!([{"addresses": ["10.244.0.5"], "hostname": "h"}]))).names();
        let of = |name: &str| names.services[&Key::new("ns", name)].clone();
        let ports = vec![("http".to_owned(), "tcp".to_owned(), 80)];
        assert_eq!(of("a"), ServiceNames::Address { address: Ipv4Addr::new(10, 96, 0, 9), ports });
        let members = vec![(Some("h".to_owned()), Ipv4Addr::new(10, 244, 0, 5))];
        assert_eq!(of("s"), ServiceNames::Headless { members, ports: vec![] });
        assert_eq!(of("x"), ServiceNames::Alias("gw.ns.svc.cluster.local".into()));
    }

    #[test]
    fn a_slice_that_goes_takes_its_endpoints_along() {
        let services = json!([{"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}}]);
        let slices = slice(json!([{"addresses": ["10.244.0.6"]}]));
        let mut directory = directory(services, slices.clone());
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).expect("slices");
        slices.into_iter().for_each(|slice| directory.put_slice(slice, true));
        assert_eq!(shown(&directory.rules(HOST)), ["10.96.0.9:80 Tcp -> "]);
        assert!(directory.slices.is_empty());
    }
}
