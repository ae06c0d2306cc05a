//! Services: where their addresses lead, and what names and variables are made from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use knoll_api::Key;
use knoll_container::network::{ServiceAddress, ServiceChanges, ServiceRule, Transport};
use tokio::sync::{mpsc, watch};

use super::dns::{Names, ServiceNames};
use super::lean::{Compact, LeanService, LeanSlice};
use crate::feed::{self, Change, Subject};
use crate::shared::{ServiceIndex, Shared};

/// How long changes are gathered before they take effect.
const GATHER: Duration = Duration::from_millis(5);
/// Pause before addresses that could not be put into force are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks whether what was put into force still is: others flush firewalls.
const LOOK: Duration = Duration::from_secs(30);
/// Changes that wait; more wait in the API server.
const QUEUE: usize = 256;

/// Services and their endpoints, and what follows from them: where addresses lead, and what names stand for.
///
/// A change of a Service or of one of its slices costs what that Service has, however many others there are: it is
/// marked, and [`ServiceDirectory::settle`] computes what is marked anew and says what differs.
#[derive(Clone, Debug)]
pub struct ServiceDirectory {
    host: HostAddresses,
    services: OrdMap<Key, Compact<Service>>,
    /// By namespace and Service, then by name of the slice. This and the claims are flat, a row a fact: nearly every Service
    /// has one slice, and every address one claimant, and a map of its own for each would weigh more than all else.
    slices: BTreeMap<(Key, String), Compact<EndpointSlice>>,
    /// What each Service wants its addresses to lead to, and its age.
    wanted: BTreeMap<Key, Wanted>,
    /// Who wants an address: the oldest has it.
    claims: BTreeSet<(ServiceAddress, Age, Key)>,
    names: Names,
    changed: BTreeSet<Key>,
    settled: u64,
}

/// When a Service was made; those that do not say are the youngest.
type Age = Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    age: Age,
    rules: Vec<ServiceRule>,
}

/// The machine's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddresses {
    /// As others see it.
    pub address: Ipv4Addr,
    /// As its pods see it.
    pub gateway: Ipv4Addr,
}

impl ServiceDirectory {
    /// Nothing yet, on a machine with these addresses.
    pub fn new(host: HostAddresses) -> ServiceDirectory {
        ServiceDirectory {
            host,
            services: OrdMap::new(),
            slices: BTreeMap::new(),
            wanted: BTreeMap::new(),
            claims: BTreeSet::new(),
            names: Names::default(),
            changed: BTreeSet::new(),
            settled: 0,
        }
    }

    /// Takes a Service, or forgets it.
    pub fn put_service(&mut self, service: LeanService, gone: bool) {
        let LeanService { key, object } = service;
        self.changed.insert(key.clone());
        if gone {
            self.services.remove(&key);
        } else {
            self.services.insert(key, object);
        }
    }

    /// Takes all Services there are.
    pub fn put_all_services(&mut self, all: Vec<LeanService>) {
        self.changed.extend(self.services.keys().cloned());
        self.services = all.into_iter().map(|service| (service.key, service.object)).collect();
        self.changed.extend(self.services.keys().cloned());
    }

    /// Takes a slice, or forgets it. A slice of no Service says nothing.
    pub fn put_slice(&mut self, slice: LeanSlice, gone: bool) {
        let LeanSlice { of, name, object } = slice;
        let Some(of) = of else { return };
        self.changed.insert(of.clone());
        if gone {
            self.slices.remove(&(of, name));
        } else {
            self.slices.insert((of, name), object);
        }
    }

    /// Takes all slices there are.
    pub fn put_all_slices(&mut self, all: Vec<LeanSlice>) {
        self.changed.extend(std::mem::take(&mut self.slices).into_keys().map(|(of, _)| of));
        all.into_iter().for_each(|slice| self.put_slice(slice, false));
    }

    /// The slices of a Service.
    fn slices_of(&self, service: &Key) -> Vec<EndpointSlice> {
        let from = (service.clone(), String::new());
        let slices = self.slices.range(from..).take_while(|((of, _), _)| of == service);
        slices.map(|(_, slice)| slice.read()).collect()
    }

    /// The Services there are. A copy shares what does not change.
    pub fn services(&self) -> &OrdMap<Key, Compact<Service>> {
        &self.services
    }

    /// What names stand for, as of the last [`ServiceDirectory::settle`].
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Has everything computed and said anew.
    pub fn unsettle(&mut self) {
        self.wanted.clear();
        self.claims.clear();
        self.changed.extend(self.services.keys().cloned());
    }

    /// How many Services were computed so far: what all changes together have cost.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Computes what has changed and says which addresses lead elsewhere now.
    pub fn settle(&mut self) -> ServiceChanges {
        let mut touched = BTreeSet::new();
        for key in std::mem::take(&mut self.changed) {
            self.settled += 1;
            let service = self.services.get(&key).map(Compact::read);
            match service.as_ref().and_then(|service| self.names_of(&key, service)) {
                Some(names) => drop(self.names.services.insert(key.clone(), Arc::new(names))),
                None => drop(self.names.services.remove(&key)),
            }
            let wanted = service.map(|service| Wanted { age: age(&service), rules: self.rules_of(&key, &service) });
            let before = self.wanted.get(&key);
            if before == wanted.as_ref() {
                continue;
            }
            for rule in before.iter().flat_map(|w| &w.rules).chain(wanted.iter().flat_map(|w| &w.rules)) {
                touched.insert(rule.address());
            }
            self.replace_claims(key, wanted);
        }
        let mut changes = ServiceChanges::default();
        for address in touched {
            match self.in_force(&address) {
                Some(rule) => changes.put.push(rule.clone()),
                None => changes.gone.push(address),
            }
        }
        changes
    }

    fn replace_claims(&mut self, key: Key, wanted: Option<Wanted>) {
        if let Some(before) = self.wanted.remove(&key) {
            for rule in &before.rules {
                self.claims.remove(&(rule.address(), before.age, key.clone()));
            }
        }
        let Some(wanted) = wanted else { return };
        for rule in &wanted.rules {
            self.claims.insert((rule.address(), wanted.age, key.clone()));
            if let Some(holder) = self.holder(&rule.address()).filter(|holder| **holder != key) {
                tracing::warn!(service = %key, %holder, address = %rule.service, "an address belongs to an older Service");
            }
        }
        self.wanted.insert(key, wanted);
    }

    /// Whose an address is: the oldest Service's of those that want it.
    fn holder(&self, address: &ServiceAddress) -> Option<&Key> {
        let first = (*address, Age::MIN, Key::default());
        let (of, _, holder) = self.claims.range(first..).next()?;
        (of == address).then_some(holder)
    }

    /// Where an address leads: as whose it is wants.
    fn in_force(&self, address: &ServiceAddress) -> Option<&ServiceRule> {
        let holder = self.holder(address)?;
        self.wanted.get(holder)?.rules.iter().find(|rule| rule.address() == *address)
    }

    /// Where the addresses of a Service lead, each once.
    fn rules_of(&self, key: &Key, service: &Service) -> Vec<ServiceRule> {
        let mut rules = Vec::new();
        let Some(spec) = &service.spec else { return rules };
        let by_client = spec.session_affinity.as_deref() == Some("ClientIP");
        let slices = self.slices_of(key);
        for port in spec.ports.iter().flatten() {
            let Some(protocol) = transport(port.protocol.as_deref()) else { continue };
            let addresses = addresses(service, port, self.host);
            if addresses.is_empty() {
                continue;
            }
            let endpoints = endpoints(&slices, service, port);
            let rule = |service| ServiceRule { service, protocol, endpoints: endpoints.clone(), by_client };
            rules.extend(addresses.into_iter().map(rule));
        }
        rules.sort();
        rules.dedup_by_key(|rule| rule.address());
        rules
    }

    /// What the name of a Service stands for.
    fn names_of(&self, key: &Key, service: &Service) -> Option<ServiceNames> {
        let spec = service.spec.as_ref()?;
        let ports = spec.ports.iter().flatten().filter_map(|p| {
            let protocol = p.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            Some((p.name.clone().unwrap_or_default(), protocol, u16::try_from(p.port).ok()?))
        });
        let ports = ports.collect();
        Some(if spec.type_.as_deref() == Some("ExternalName") {
            ServiceNames::Alias(spec.external_name.clone().unwrap_or_default().trim_end_matches('.').to_lowercase())
        } else if let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) {
            ServiceNames::Address { address, ports }
        } else {
            ServiceNames::Headless { members: self.members(key, service), ports }
        })
    }

    /// The endpoints of a headless Service: host name, where one is set, and address.
    fn members(&self, key: &Key, service: &Service) -> Vec<(Option<String>, Ipv4Addr)> {
        let unready_too = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
        let slices = self.slices_of(key);
        let ready = slices.iter().flat_map(|s| &s.endpoints).filter(|e| unready_too || is_ready(e));
        let mut list: Vec<_> = ready
            .flat_map(|e| e.addresses.iter().map(|a| (e.hostname.clone(), a)))
            .filter_map(|(name, a)| Some((name, a.parse().ok()?)))
            .collect();
        list.sort();
        list.dedup();
        list
    }
}

fn age(service: &Service) -> Age {
    service.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |at| at.0)
}

/// Where a port of a Service leads.
fn endpoints(slices: &[EndpointSlice], service: &Service, port: &ServicePort) -> Vec<SocketAddrV4> {
    let unready_too = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    let mut list = Vec::new();
    for slice in slices {
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
fn addresses(service: &Service, port: &ServicePort, host: HostAddresses) -> Vec<SocketAddrV4> {
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
    index: watch::Sender<Option<ServiceIndex>>,
    names: watch::Sender<Arc<Names>>,
) {
    let (to_services, mut services) = mpsc::channel(QUEUE);
    let (to_slices, mut slices) = mpsc::channel(QUEUE);
    let client = shared.api.0.clone();
    let subject = |path: &str| Subject { path: path.into(), field_selector: None };
    let counters = || Arc::clone(&shared.counters);
    let follow_services = feed::follow(client.clone(), subject("/api/v1/services"), counters(), to_services);
    let slices_of = subject("/apis/discovery.k8s.io/v1/endpointslices");
    let follow_slices = feed::follow(client, slices_of, counters(), to_slices);
    let apply = async {
        let mut state = State::new(&shared);
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
                index.send_replace(Some(state.directory.services().clone()));
            }
            if state.known == (true, true) {
                wait = Some(state.enforce(&names).await);
            }
        }
    };
    tokio::join!(follow_services, follow_slices, apply);
}

struct State<'a> {
    shared: &'a Shared,
    directory: ServiceDirectory,
    /// Whether Services and slices were listed.
    known: (bool, bool),
    /// Whether what is in force is known: the first changes replace whatever an earlier node left.
    begun: bool,
    /// Changes that were handed over and not taken; whoever refused them knows them.
    refused: bool,
    /// When it was last looked whether everything still is in force.
    looked: tokio::time::Instant,
}

impl State<'_> {
    fn new(shared: &Shared) -> State<'_> {
        let host = HostAddresses { address: shared.config.address, gateway: shared.config.gateway };
        let looked = tokio::time::Instant::now();
        State {
            shared,
            directory: ServiceDirectory::new(host),
            known: (false, false),
            begun: false,
            refused: false,
            looked,
        }
    }

    fn take_service(&mut self, change: Change<LeanService>) {
        match change {
            Change::All { items, .. } => {
                self.known.0 = true;
                self.directory.put_all_services(items);
            }
            Change::Put(service) => self.directory.put_service(service, false),
            Change::Gone(service) => self.directory.put_service(service, true),
        }
    }

    fn take_slice(&mut self, change: Change<LeanSlice>) {
        match change {
            Change::All { items, .. } => {
                self.known.1 = true;
                self.directory.put_all_slices(items);
            }
            Change::Put(slice) => self.directory.put_slice(slice, false),
            Change::Gone(slice) => self.directory.put_slice(slice, true),
        }
    }

    /// Puts what has changed into force; what somebody else took away, too, from time to time. Returns when to come
    /// again.
    async fn enforce(&mut self, names: &watch::Sender<Arc<Names>>) -> Duration {
        let mut changes = self.directory.settle();
        names.send_replace(Arc::new(self.directory.names().clone()));
        changes.all = !self.begun;
        let until_look = LOOK.saturating_sub(self.looked.elapsed());
        if changes.is_empty() {
            if !self.refused && !until_look.is_zero() {
                return until_look;
            }
            self.looked = tokio::time::Instant::now();
        }
        let change = Arc::clone(&self.shared.callbacks.change_services);
        let outcome = tokio::task::spawn_blocking(move || change(changes)).await;
        self.begun = true;
        self.refused = !matches!(outcome, Ok(Ok(())));
        match outcome {
            Ok(Ok(())) => return LOOK.saturating_sub(self.looked.elapsed()),
            Ok(Err(error)) => tracing::warn!(error, "the addresses of Services are not in force"),
            Err(error) => {
                tracing::error!(%error, "the addresses of Services are not in force");
                // What became of these changes nobody knows.
                self.begun = false;
                self.directory.unsettle();
            }
        }
        RETRY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOST: HostAddresses =
        HostAddresses { address: Ipv4Addr::new(192, 0, 2, 1), gateway: Ipv4Addr::new(169, 254, 77, 1) };

    fn directory(services: Value, slices: Value) -> ServiceDirectory {
        let mut directory = ServiceDirectory::new(HOST);
        let services: Vec<Service> = serde_json::from_value(services).expect("services");
        for mut service in services {
            service.metadata.namespace = Some("ns".into());
            directory.put_service(service.into(), false);
        }
        let slices: Vec<LeanSlice> = serde_json::from_value(slices).expect("slices");
        slices.into_iter().for_each(|slice| directory.put_slice(slice, false));
        directory
    }

    fn slice(endpoints: Value) -> Value {
        json!([{"metadata": {"name": "s-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
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
            shown(&directory(services, slice(endpoints)).settle().put),
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
        let mut directory = directory(services, slice(json!([{"addresses": ["10.244.0.5"], "hostname": "h"}])));
        directory.settle();
        let of = |name: &str| ServiceNames::clone(&directory.names().services[&Key::new("ns", name)]);
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
        assert_eq!(shown(&directory.settle().put), ["10.96.0.9:80 Tcp -> 10.244.0.6:8080"]);
        let slices: Vec<LeanSlice> = serde_json::from_value(slices).expect("slices");
        slices.into_iter().for_each(|slice| directory.put_slice(slice, true));
        assert_eq!(shown(&directory.settle().put), ["10.96.0.9:80 Tcp -> "]);
        assert!(directory.slices.is_empty());
    }

    fn made(name: &str, second: i64, ip: &str) -> LeanService {
        let at = Timestamp::from_second(second).expect("in range").to_string();
        let service = json!({"metadata": {"name": name, "namespace": "ns", "creationTimestamp": at},
            "spec": {"clusterIP": ip, "externalIPs": ["198.51.100.7"], "ports": [{"port": 80}]}});
        serde_json::from_value(service).expect("a Service")
    }

    #[test]
    fn an_address_stays_with_the_oldest_that_wants_it() {
        let mut directory = ServiceDirectory::new(HOST);
        let external = |changes: &ServiceChanges| {
            shown(&changes.put).into_iter().filter(|rule| rule.starts_with("198.51")).collect::<Vec<_>>()
        };
        let slice = |of: &str, ip: &str| -> LeanSlice {
            serde_json::from_value(
                json!({"metadata": {"name": of, "namespace": "ns", "labels": {"kubernetes.io/service-name": of}},
                "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [ip]}]}),
            )
            .expect("a slice")
        };
        directory.put_slice(slice("old", "10.244.0.1"), false);
        directory.put_slice(slice("a-thief", "10.244.0.2"), false);
        let old = made("old", 5, "10.96.0.1");
        directory.put_service(old.clone(), false);
        assert_eq!(external(&directory.settle()), ["198.51.100.7:80 Tcp -> 10.244.0.1:8080"]);
        directory.put_service(made("a-thief", 6, "10.96.0.2"), false);
        assert_eq!(external(&directory.settle()), ["198.51.100.7:80 Tcp -> 10.244.0.1:8080"]);
        directory.put_service(old, true);
        let changes = directory.settle();
        assert_eq!(external(&changes), ["198.51.100.7:80 Tcp -> 10.244.0.2:8080"]);
        assert_eq!(changes.gone, [("10.96.0.1:80".parse().expect("an address"), Transport::Tcp)]);
    }

    #[test]
    fn one_change_among_ten_thousand_services_costs_one() {
        let mut directory = ServiceDirectory::new(HOST);
        let all = (0..10_000u32).map(|n| {
            let service = json!({"metadata": {"name": format!("s{n}"), "namespace": "ns"}, "spec": {
                "clusterIP": Ipv4Addr::from(0x0a60_0000 + n).to_string(), "ports": [{"name": "http", "port": 80}]}});
            serde_json::from_value(service).expect("a Service")
        });
        directory.put_all_services(all.collect());
        assert_eq!(directory.settle().put.len(), 10_000);
        let before = directory.settled();
        let mut endpoints: Vec<EndpointSlice> =
            serde_json::from_value(slice(json!([{"addresses": ["10.244.0.6"]}]))).expect("slices");
        let labels = endpoints[0].metadata.labels.get_or_insert_default();
        labels.insert("kubernetes.io/service-name".into(), "s77".into());
        directory.put_slice(endpoints.remove(0).into(), false);
        let changes = directory.settle();
        assert_eq!(shown(&changes.put), ["10.96.0.77:80 Tcp -> 10.244.0.6:8080"]);
        assert_eq!((directory.settled() - before, changes.gone.len()), (1, 0));
        assert!(directory.settle().is_empty());
    }
}
