//! The host's side of the network: forwarding, the gateway address, masquerading, and service addresses.
//!
//! All of it is synchronous netlink and takes about a millisecond; call it from a blocking context. Everything lives
//! in one nftables table, on the loopback interface and in one route, so that it neither disturbs nor depends on other
//! firewalls' tables.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use crate::netlink::Socket;
use crate::netlink::route::{RT_SCOPE_LINK, Route};
use crate::nft::{self, Batch, Element, Expr, REG, Values};

/// What the host needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The nftables table, of family ip; ours alone. `knoll` unless several instances share a machine.
    pub table: String,
    /// The pods' addresses.
    pub pods: (Ipv4Addr, u8),
    /// The services' addresses. Connections to one that no rule names are refused.
    pub services: (Ipv4Addr, u8),
    /// The pods' default route and the address the host answers them on; put on the loopback interface.
    pub gateway: Ipv4Addr,
    /// What the names of the host's ends of the pods' veths begin with.
    pub veth_prefix: String,
}

/// One service port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRule {
    /// The address and port clients use; may lie outside [`Config::services`] (external addresses).
    pub service: SocketAddrV4,
    /// Its transport.
    pub protocol: Transport,
    /// Where connections go, evenly. Empty: they are refused. The host's own programs are reached by the gateway
    /// address, not by 127.0.0.1.
    pub endpoints: Vec<SocketAddrV4>,
    /// Whether a client stays on its endpoint: by a hash of its address instead of at random.
    pub by_client: bool,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    fn number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A kernel setting cannot be written.
    #[error("cannot write {path}")]
    Setting {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a routing change.
    #[error("cannot {what}")]
    Route {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused the firewall table.
    #[error("cannot {what} with nf_tables")]
    Table {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What a service is known by: address and port, and transport.
pub type ServiceAddress = (SocketAddrV4, Transport);

impl ServiceRule {
    /// What the service is known by.
    pub fn address(&self) -> ServiceAddress {
        (self.service, self.protocol)
    }
}

/// What changes about services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceChanges {
    /// Whether these are all services there are: any other one goes.
    pub all: bool,
    /// New ones, and ones that lead elsewhere now.
    pub put: Vec<ServiceRule>,
    /// Those that are no more.
    pub gone: Vec<ServiceAddress>,
}

impl ServiceChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        !self.all && self.put.is_empty() && self.gone.is_empty()
    }
}

/// The host's network, set up. Knows which services the kernel has, so that changes cost what they change.
#[derive(Debug)]
pub struct HostNetwork {
    config: Config,
    services: BTreeMap<ServiceAddress, Held>,
    /// How many services lead to an address.
    endpoints: BTreeMap<Ipv4Addr, u32>,
    /// Whether the kernel has them all. Not before the first call, which replaces whatever an earlier program left, nor
    /// after a failed one.
    in_force: bool,
    next: u32,
}

/// A service in the kernel.
#[derive(Debug)]
struct Held {
    endpoints: Vec<SocketAddrV4>,
    by_client: bool,
    /// The number in the names of its chain and map, when it has several endpoints.
    chain: Option<u32>,
}

/// Sets the host up: forwarding on, the gateway address, the route that leads service addresses to the firewall, the one
/// that refuses the addresses of pods that are gone, and the table. Service rules that an earlier program left stay until [`HostNetwork::set_services`]. May be repeated.
pub fn setup(config: Config) -> Result<HostNetwork, NetworkError> {
    ways(&config)?;
    let table = |what| move |source| NetworkError::Table { what, source };
    if !nft::table_exists(&config.table).map_err(table("look for the table"))? {
        let mut batch = Batch::new(&config.table);
        batch.replace_table();
        frame(&mut batch, &config);
        batch.commit().map_err(table("make the table"))?;
    }
    Ok(HostNetwork { config, services: BTreeMap::new(), endpoints: BTreeMap::new(), in_force: false, next: 0 })
}

/// Forwarding, the gateway address, and the routes to services and to pods that are gone. May be repeated.
fn ways(config: &Config) -> Result<(), NetworkError> {
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    let route = |what| move |source| NetworkError::Route { what, source };
    let mut socket = Socket::route().map_err(route("open a routing socket"))?;
    let loopback = socket.link("lo").map_err(route("find the loopback interface"))?;
    socket.up(loopback).map_err(route("switch the loopback interface on"))?;
    let gateway = config.gateway;
    socket.add_address(loopback, gateway, RT_SCOPE_LINK).map_err(route("add the gateway address"))?;
    // Without it a machine without a default route has no way to a service, and one with it would ask its neighbours.
    let services = service_route(config, loopback);
    socket.add_route(&services).map_err(route("add the route to services"))?;
    // What is out of date about a pod, as everything is after the machine's start, must not be asked of its neighbours.
    socket.add_route(&refused_pods(config)).map_err(route("refuse the addresses of pods that are gone"))
}

/// Removes what [`setup`] made, except for forwarding, which others may rely on by now. Absent parts are fine.
pub fn teardown(config: &Config) -> Result<(), NetworkError> {
    let table = |source| NetworkError::Table { what: "remove the table", source };
    if nft::table_exists(&config.table).map_err(table)? {
        let mut batch = Batch::new(&config.table);
        batch.delete_table();
        batch.commit().map_err(table)?;
    }
    let route = |what| move |source| NetworkError::Route { what, source };
    let mut socket = Socket::route().map_err(route("open a routing socket"))?;
    let loopback = socket.link("lo").map_err(route("find the loopback interface"))?;
    socket.remove_route(&service_route(config, loopback)).map_err(route("remove the route to services"))?;
    socket.remove_route(&refused_pods(config)).map_err(route("remove the route to pods that are gone"))?;
    socket.remove_address(loopback, config.gateway).map_err(route("remove the gateway address"))
}

/// Removes the host's ends of the pods' veths: interfaces called `prefix` and up to eight hex digits. The kernel takes
/// them away with their namespaces, too, but in its own time.
pub fn remove_veths(prefix: &str) -> Result<(), NetworkError> {
    let route = |what| move |source| NetworkError::Route { what, source };
    let mut socket = Socket::route().map_err(route("open a routing socket"))?;
    for entry in fs::read_dir("/sys/class/net").map_err(route("list interfaces"))? {
        let name = entry.map_err(route("list interfaces"))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let ours = number.is_some_and(|n| (1..=8).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_hexdigit()));
        if let (true, Some(name)) = (ours, name.to_str()) {
            socket.remove_link(name).map_err(route("remove a pod's veth"))?;
        }
    }
    Ok(())
}

fn service_route(config: &Config, loopback: u32) -> Route {
    Route { destination: config.services, gateway: None, source: Some(config.gateway), link: Some(loopback) }
}

/// Where a pod's address leads that no pod has: nowhere. Each pod has a route of its own.
fn refused_pods(config: &Config) -> Route {
    Route { destination: config.pods, gateway: None, source: None, link: None }
}

fn set(path: &str, value: &str) -> Result<(), NetworkError> {
    if fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| NetworkError::Setting { path: path.into(), source })
}

impl HostNetwork {
    /// Makes these the services, in one transaction. Of rules for the same address, port and transport the last wins.
    pub fn set_services(&mut self, rules: &[ServiceRule]) -> Result<(), NetworkError> {
        self.change_services(&ServiceChanges { all: true, put: rules.to_vec(), gone: Vec::new() })
    }

    /// Changes services, in one transaction that costs what differs. What could not be put into force is remembered:
    /// the next call, whatever it changes, puts everything into force. So does one without changes when somebody else
    /// has removed the table, the gateway address or the route to services.
    pub fn change_services(&mut self, changes: &ServiceChanges) -> Result<(), NetworkError> {
        if changes.is_empty() && self.in_force {
            self.in_force = self.stands()?;
        }
        let batch = self.plan(changes);
        self.in_force = false;
        let outcome = if batch.is_empty() { Ok(()) } else { batch.commit() };
        outcome.map_err(|source| NetworkError::Table { what: "set the services", source })?;
        self.in_force = true;
        Ok(())
    }

    /// Puts the gateway address, the route to services and forwarding back, should somebody have taken them away, and
    /// says whether the table is there still.
    fn stands(&self) -> Result<bool, NetworkError> {
        ways(&self.config)?;
        let table = |source| NetworkError::Table { what: "look for the table", source };
        let stands = nft::table_exists(&self.config.table).map_err(table)?;
        if !stands {
            tracing::warn!(table = self.config.table, "somebody removed the nftables table: it is made anew");
        }
        Ok(stands)
    }

    /// Takes changes in and says what the kernel has to be told.
    fn plan(&mut self, changes: &ServiceChanges) -> Batch {
        let mut batch = Batch::new(&self.config.table);
        let mut wanted: BTreeMap<ServiceAddress, Option<&ServiceRule>> = BTreeMap::new();
        if changes.all {
            wanted.extend(self.services.keys().map(|address| (*address, None)));
        }
        wanted.extend(changes.gone.iter().map(|address| (*address, None)));
        wanted.extend(changes.put.iter().map(|rule| (rule.address(), Some(rule))));
        let mut before = BTreeMap::new();
        for (address, rule) in wanted {
            self.replace(&mut batch, address, rule, &mut before);
        }
        if !self.in_force {
            return self.plan_everything();
        }
        let known = &self.endpoints;
        let differs = |wanted: bool| -> Vec<Element> {
            let changed =
                |(address, had): &(&Ipv4Addr, &bool)| **had != wanted && known.contains_key(address) == wanted;
            before.iter().filter(changed).map(|(address, _)| Element::key(pair(*address))).collect()
        };
        batch.remove("loops", &differs(false));
        batch.add("loops", &differs(true));
        batch
    }

    /// Replaces one service, and notes in `before` which endpoints were known until then.
    fn replace(
        &mut self,
        batch: &mut Batch,
        address: ServiceAddress,
        rule: Option<&ServiceRule>,
        before: &mut BTreeMap<Ipv4Addr, bool>,
    ) {
        let held = self.services.get(&address);
        if held.zip(rule).is_some_and(|(held, rule)| held.holds(rule)) {
            return;
        }
        if let Some(held) = self.services.remove(&address) {
            withdraw(batch, &address, &held);
            for endpoint in &held.endpoints {
                before.entry(*endpoint.ip()).or_insert(true);
                if let Entry::Occupied(mut known) = self.endpoints.entry(*endpoint.ip()) {
                    *known.get_mut() -= 1;
                    if *known.get() == 0 {
                        known.remove();
                    }
                }
            }
        }
        let Some(rule) = rule else { return };
        for endpoint in &rule.endpoints {
            let known = self.endpoints.entry(*endpoint.ip()).or_default();
            before.entry(*endpoint.ip()).or_insert(*known > 0);
            *known += 1;
        }
        let held = self.publish(batch, address, rule);
        self.services.insert(address, held);
    }

    /// What makes the kernel's table from nothing.
    fn plan_everything(&mut self) -> Batch {
        let mut batch = Batch::new(&self.config.table);
        batch.replace_table();
        frame(&mut batch, &self.config);
        for ((service, protocol), held) in std::mem::take(&mut self.services) {
            let Held { endpoints, by_client, .. } = held;
            let rule = ServiceRule { service, protocol, endpoints, by_client };
            let held = self.publish(&mut batch, (service, protocol), &rule);
            self.services.insert((service, protocol), held);
        }
        let pairs: Vec<Element> = self.endpoints.keys().map(|address| Element::key(pair(*address))).collect();
        batch.add("loops", &pairs);
        batch
    }

    fn publish(&mut self, batch: &mut Batch, key: ServiceAddress, rule: &ServiceRule) -> Held {
        let mut number = None;
        match rule.endpoints.as_slice() {
            [] => {}
            [endpoint] => batch.add("one", &[Element::data(service_key(&key), endpoint_data(endpoint))]),
            several => {
                self.next += 1;
                number = Some(self.next);
                publish_several(batch, &key, several, rule.by_client, self.next);
            }
        }
        // Addresses outside the service range would otherwise be left to themselves.
        if rule.endpoints.is_empty() {
            batch.add("none", &[Element::key(service_key(&key))]);
        }
        Held { endpoints: rule.endpoints.clone(), by_client: rule.by_client, chain: number }
    }
}

impl Held {
    fn holds(&self, rule: &ServiceRule) -> bool {
        self.endpoints == rule.endpoints && self.by_client == rule.by_client
    }
}

/// The fixed part of the table.
///
/// `services` finds a service with one endpoint in the map `one`, and the chain of one with several in `several`. What
/// still has a service's address after that is refused. Pods are masqueraded when they leave the machine, and go by
/// the gateway's address when they reach themselves by a service, since nobody accepts packets from themselves.
fn frame(batch: &mut Batch, config: &Config) {
    guard(batch, config);
    let (address, port) = (REG + 4, REG + 5);
    batch.chain("services", None);
    batch.chain("refuse", None);
    batch.set("one", (nft::TYPE_SERVICE, 12), Values::Data(nft::TYPE_ADDRESS_PORT, 8));
    batch.set("several", (nft::TYPE_SERVICE, 12), Values::Verdicts);
    batch.set("none", (nft::TYPE_SERVICE, 12), Values::None);
    batch.set("loops", (nft::TYPE_ADDRESS_PAIR, 8), Values::None);
    let found = [Expr::lookup("one", REG, address), Expr::redirect(address, port)];
    batch.rule("services", &with_service_key(found));
    batch.rule("services", &with_service_key([Expr::dispatch("several", REG)]));
    for (name, hook) in [("prerouting", nft::PREROUTING), ("output", nft::OUTPUT)] {
        batch.chain(name, Some(hook));
        batch.rule(name, &[Expr::jump("services")]);
    }

    let (services, prefix) = config.services;
    let tcp = [Transport::Tcp.number()];
    batch.rule("refuse", &[Expr::protocol(REG), Expr::compare(REG, true, &tcp), Expr::reject(true)]);
    batch.rule("refuse", &[Expr::reject(false)]);
    for (name, hook) in [("forward", nft::FILTER_FORWARD), ("leave", nft::FILTER_OUTPUT)] {
        batch.chain(name, Some(hook));
        let unclaimed = chain([inside(Expr::destination(REG), services, prefix, true), vec![Expr::jump("refuse")]]);
        batch.rule(name, &unclaimed);
        batch.rule(name, &with_service_key([Expr::member("none", REG), Expr::jump("refuse")]));
    }

    let (pods, pods_prefix) = config.pods;
    batch.chain("postrouting", Some(nft::POSTROUTING));
    let itself = vec![Expr::source(REG), Expr::destination(REG + 1), Expr::member("loops", REG)];
    // The veths have no address to masquerade with.
    let by_gateway = vec![Expr::value(&config.gateway.octets(), REG), Expr::pretend(REG)];
    batch.rule("postrouting", &chain([itself, by_gateway]));
    let from_pod = inside(Expr::source(REG), pods, pods_prefix, true);
    let to_elsewhere = || inside(Expr::destination(REG), pods, pods_prefix, false);
    batch.rule("postrouting", &chain([from_pod, to_elsewhere(), vec![Expr::masquerade()]]));
    let from_gateway = inside(Expr::source(REG), config.gateway, 32, true);
    let not_to_itself = inside(Expr::destination(REG), config.gateway, 32, false);
    batch.rule("postrouting", &chain([from_gateway, to_elsewhere(), not_to_itself, vec![Expr::masquerade()]]));
}

/// What pods send under other addresses than their own is dropped.
///
/// Pods, services and the gateway's address are for the machine and its pods. A neighbour that routes to them by this
/// machine, or asks the link for the gateway's address, would pass by what the outside is offered.
fn guard(batch: &mut Batch, config: &Config) {
    batch.chain("guard", Some(nft::FILTER_PREROUTING));
    // A pod sends from its own address: its veth is the way back to no other.
    let by_veth = vec![Expr::arrival(REG), Expr::compare(REG, true, config.veth_prefix.as_bytes())];
    let forged = vec![Expr::way_back(REG), Expr::compare(REG, true, &[0; 4]), Expr::drop()];
    batch.rule("guard", &chain([by_veth, forged]));
    for inner in [&b"lo\0"[..], config.veth_prefix.as_bytes()] {
        batch.rule("guard", &[Expr::arrival(REG), Expr::compare(REG, true, inner), Expr::accept()]);
    }
    for (network, prefix) in [config.pods, config.services, (config.gateway, 32)] {
        let to_it = inside(Expr::destination(REG), network, prefix, true);
        batch.rule("guard", &chain([to_it, vec![Expr::drop()]]));
    }
}

fn chain<const N: usize>(parts: [Vec<Expr>; N]) -> Vec<Expr> {
    parts.into_iter().flatten().collect()
}

/// Goes on only when what `load` loads lies in (or outside) a network.
fn inside(load: Expr, network: Ipv4Addr, prefix: u8, equal: bool) -> Vec<Expr> {
    let base = Ipv4Addr::from(u32::from(network) & u32::from(nft::netmask(prefix)));
    vec![load, Expr::mask(REG, prefix), Expr::compare(REG, equal, &base.octets())]
}

/// Loads destination, protocol and port side by side.
fn with_service_key<const N: usize>(then: [Expr; N]) -> Vec<Expr> {
    let mut all = vec![Expr::destination(REG), Expr::protocol(REG + 1), Expr::load(true, 2, 2, REG + 2)];
    all.extend(then);
    all
}

fn publish_several(batch: &mut Batch, key: &ServiceAddress, endpoints: &[SocketAddrV4], by_client: bool, number: u32) {
    let (chain, map) = (format!("service-{number}"), format!("endpoints-{number}"));
    let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    batch.set(&map, (nft::TYPE_INTEGER, 4), Values::Data(nft::TYPE_ADDRESS_PORT, 8));
    let numbered = endpoints.iter().zip(0u32..);
    let elements: Vec<Element> = numbered.map(|(e, n)| Element::data(n.to_ne_bytes(), endpoint_data(e))).collect();
    batch.add(&map, &elements);
    batch.chain(&chain, None);
    let mut rule = match by_client {
        true => vec![Expr::source(REG + 1), Expr::hash(REG + 1, count, REG)],
        false => vec![Expr::random(count, REG)],
    };
    rule.extend([Expr::lookup(&map, REG, REG + 4), Expr::redirect(REG + 4, REG + 5)]);
    batch.rule(&chain, &rule);
    batch.add("several", &[Element::chain(service_key(key), chain)]);
}

fn withdraw(batch: &mut Batch, key: &ServiceAddress, service: &Held) {
    let element = [Element::key(service_key(key))];
    match (service.chain, service.endpoints.is_empty()) {
        (Some(number), _) => {
            batch.remove("several", &element);
            batch.delete_chain(&format!("service-{number}"));
            batch.delete_set(&format!("endpoints-{number}"));
        }
        (None, true) => batch.remove("none", &element),
        (None, false) => batch.remove("one", &element),
    }
}

/// Each part fills a register.
fn service_key((service, protocol): &ServiceAddress) -> Vec<u8> {
    let [a, b, c, d] = service.ip().octets();
    let [high, low] = service.port().to_be_bytes();
    vec![a, b, c, d, protocol.number(), 0, 0, 0, high, low, 0, 0]
}

fn endpoint_data(endpoint: &SocketAddrV4) -> Vec<u8> {
    let [a, b, c, d] = endpoint.ip().octets();
    let [high, low] = endpoint.port().to_be_bytes();
    vec![a, b, c, d, high, low, 0, 0]
}

fn pair(address: Ipv4Addr) -> Vec<u8> {
    [address.octets(), address.octets()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(n: u32, endpoints: &[u8]) -> ServiceRule {
        let service = SocketAddrV4::new(Ipv4Addr::from(0x0a60_0000 + n), 80);
        let to = |last: &u8| SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, *last), 8080);
        let endpoints = endpoints.iter().map(to).collect();
        ServiceRule { service, protocol: Transport::Tcp, endpoints, by_client: false }
    }

    fn put(n: u32, endpoints: &[u8]) -> ServiceChanges {
        ServiceChanges { put: vec![rule(n, endpoints)], ..ServiceChanges::default() }
    }

    #[test]
    fn one_change_among_ten_thousand_services_tells_the_kernel_of_one() {
        let config = Config {
            table: "knolltest".into(),
            pods: (Ipv4Addr::new(10, 244, 0, 0), 16),
            services: (Ipv4Addr::new(10, 96, 0, 0), 12),
            gateway: Ipv4Addr::new(169, 254, 77, 1),
            veth_prefix: "k".into(),
        };
        let mut network =
            HostNetwork { config, services: BTreeMap::new(), endpoints: BTreeMap::new(), in_force: false, next: 0 };
        let all = ServiceChanges { all: true, put: (0..10_000).map(|n| rule(n, &[1])).collect(), gone: Vec::new() };
        assert!(network.plan(&all).len() > 10_000);
        network.in_force = true;
        assert!(network.plan(&put(77, &[1])).is_empty(), "nothing differs");
        // Away from one endpoint, to another that nobody had: two elements, and one more in the set of endpoints.
        assert_eq!(network.plan(&put(77, &[2])).len(), 3);
        assert_eq!(
            network.plan(&ServiceChanges { gone: vec![rule(77, &[]).address()], ..Default::default() }).len(),
            2
        );
        assert_eq!(network.services.len(), 9999);
        network.in_force = false;
        assert!(network.plan(&ServiceChanges::default()).len() > 9999, "what was refused is told again");
    }
}
