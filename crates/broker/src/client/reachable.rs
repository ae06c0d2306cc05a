//! Which addresses events are sent to: those that others than the machine itself reach as well, and that are not its own.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, PoisonError, RwLock},
    task::Poll,
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::Uri;
use tokio::{sync::Mutex, time::Instant};

use crate::Config;

/// Why an address is not sent to.
pub(super) const REFUSED: &str = "it is an address of the machine's own, of its link, or of many: events are not sent to those. Name a Service, or an address that pods reach";
/// How long the machine's addresses are taken to be the same.
const FRESH: Duration = Duration::from_secs(5);

/// Lists the machine's own addresses. It may block.
pub type MachineAddresses = Arc<dyn Fn() -> io::Result<Vec<IpAddr>> + Send + Sync>;

tokio::task_local! {
    /// The port to which a connection is made.
    static PORT: u16;
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reachable(Arc<Inner>);

struct Inner {
    all: bool,
    gateway: Option<IpAddr>,
    /// Ports of the machine's own addresses that everybody may ask.
    ports: Vec<u16>,
    machine: Option<Machine>,
}

/// The machine's own addresses.
struct Machine {
    list: MachineAddresses,
    /// As they were at this time.
    known: RwLock<Option<(Instant, Arc<HashSet<IpAddr>>)>>,
    /// Held while they are listed: once for all who find them old.
    listing: Mutex<()>,
}

impl Reachable {
    pub(super) fn new(config: &Config, machine: Option<MachineAddresses>) -> Self {
        let machine = machine.map(|list| Machine { list, known: RwLock::default(), listing: Mutex::default() });
        let Config { loopback, gateway, open_ports, .. } = config;
        Self(Arc::new(Inner { all: *loopback, gateway: *gateway, ports: open_ports.clone(), machine }))
    }

    /// Whether a port of an address is sent to. What listens where only the machine reaches trusts whoever comes, and what its
    /// link has, such as a cloud's metadata, tells it more than others. To what listens at its other addresses a delivery, which
    /// comes from one of them, is the machine itself, where a pod is a stranger.
    ///
    /// # Errors
    /// When the machine does not say which addresses it has.
    async fn has(&self, address: IpAddr, port: Option<u16>) -> io::Result<bool> {
        let Inner { all, gateway, ports, machine } = &*self.0;
        if *all || *gateway == Some(address.to_canonical()) {
            return Ok(true);
        }
        match machine {
            _ if is_refused(address) => Ok(false),
            Some(machine) if !port.is_some_and(|port| ports.contains(&port)) => {
                Ok(!machine.addresses().await?.contains(&plain(address)))
            }
            Some(_) | None => Ok(true),
        }
    }

    /// Whether a URI may lead somewhere: it names an address that is sent to, or none.
    ///
    /// # Errors
    /// When the machine does not say which addresses it has.
    pub(super) async fn has_literal(&self, uri: &Uri) -> io::Result<bool> {
        match literal(uri) {
            Some(address) => self.has(address, port(uri)).await,
            None => Ok(true),
        }
    }

    /// Of the addresses of a name those that are sent to, within [`to_port_of`].
    ///
    /// # Errors
    /// When there are none of them, or the machine does not say which addresses it has.
    pub(super) async fn of<A>(&self, found: Vec<A>, ip: impl Fn(&A) -> IpAddr) -> io::Result<Vec<A>> {
        let (port, there) = (PORT.try_with(|port| *port).ok(), found.len());
        let mut reachable = Vec::with_capacity(there);
        for address in found {
            if self.has(ip(&address), port).await? {
                reachable.push(address);
            }
        }
        if reachable.is_empty() && there > 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, REFUSED));
        }
        Ok(reachable)
    }
}

impl Machine {
    /// Those that are known and not old.
    fn fresh(&self) -> Option<Arc<HashSet<IpAddr>>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, addresses)| addresses.clone())
    }

    async fn addresses(&self) -> io::Result<Arc<HashSet<IpAddr>>> {
        if let Some(addresses) = self.fresh() {
            return Ok(addresses);
        }
        let _listing = self.listing.lock().await;
        if let Some(addresses) = self.fresh() {
            return Ok(addresses);
        }
        let (list, now) = (self.list.clone(), Instant::now());
        let listed = tokio::task::spawn_blocking(move || list()).await.map_err(io::Error::other)?;
        let listed = listed.map_err(|error| {
            io::Error::new(error.kind(), format!("the machine does not say which addresses it has: {error}"))
        })?;
        let addresses: Arc<HashSet<IpAddr>> = Arc::new(listed.into_iter().map(plain).collect());
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some((now, addresses.clone()));
        Ok(addresses)
    }
}

/// Makes connections within which it is known to which port they go.
#[derive(Clone)]
pub(super) struct ToPort<C>(pub(super) C);

impl<C> tower::Service<Uri> for ToPort<C>
where
    C: tower::Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = C::Error;
    type Future = BoxFuture<'static, Result<C::Response, C::Error>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let port = port(&uri).unwrap_or_default();
        Box::pin(PORT.scope(port, self.0.call(uri)))
    }
}

/// The port of an address, said or by its scheme.
fn port(uri: &Uri) -> Option<u16> {
    uri.port_u16().or_else(|| match uri.scheme_str()? {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    })
}

/// An address of version 6 that means one of version 4 as that.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn is_refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let is_special = address.is_link_local() || address.is_multicast() || address == Ipv4Addr::BROADCAST;
            address.is_loopback() || address.octets()[0] == 0 || is_special
        }
        // Those that mean one of version 4 among them, and `::` and `::1`, which read as 0.0.0.0 and 0.0.0.1.
        IpAddr::V6(address) => {
            let is_special = address.is_unicast_link_local() || address.is_multicast();
            is_special || address.to_ipv4().is_some_and(|address| is_refused(address.into()))
        }
    }
}

/// The address that a URI names, if it names none by a name.
fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    fn strict() -> Config {
        let gateway = Some(IpAddr::from([169, 254, 77, 1]));
        Config { loopback: false, gateway, open_ports: vec![8080], ..Config::default() }
    }

    #[tokio::test]
    async fn what_only_the_machine_and_its_link_reach_and_its_own_are_told_from_the_rest() {
        let own: MachineAddresses = Arc::new(|| {
            Ok(["127.0.0.1", "192.168.1.5", "169.254.77.1", "2001:db8::5"].map(|own| own.parse().expect("one")).into())
        });
        let (strict, open) = (Reachable::new(&strict(), Some(own)), Reachable::new(&Config::default(), None));
        for (uri, reachable) in [
            ("http://127.0.0.1:8080/", false),
            ("http://127.9.9.9/", false),
            ("http://0.0.0.0/", false),
            ("http://[::1]/", false),
            ("http://[::]/", false),
            ("http://[::ffff:127.0.0.1]/", false),
            ("http://[::127.0.0.1]/", false),
            ("http://169.254.169.254/", false),
            ("http://[::ffff:169.254.169.254]/", false),
            ("http://[fe80::1]/", false),
            ("http://[febf::1]/", false),
            ("http://224.0.0.1/", false),
            ("http://[ff02::1]/", false),
            ("http://255.255.255.255/", false),
            ("http://192.168.1.5/", false),
            ("http://192.168.1.5:22/", false),
            ("http://[::ffff:192.168.1.5]/", false),
            ("http://[2001:db8::5]/", false),
            ("http://192.168.1.5:8080/", true),
            ("http://10.96.0.1/", true),
            ("http://169.254.77.1/", true),
            ("http://[::ffff:169.254.77.1]/", true),
            ("http://192.168.1.1/", true),
            ("http://[2001:db8::1]/", true),
            ("http://localhost/", true),
        ] {
            let uri = Uri::from_static(uri);
            assert_eq!(strict.has_literal(&uri).await.expect("known"), reachable, "{uri}");
            assert!(open.has_literal(&uri).await.expect("not asked"), "{uri}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_the_machine_leads_nowhere_but_to_ports_that_are_open_to_all() {
        let own: MachineAddresses = Arc::new(|| Ok(vec![IpAddr::from([192, 168, 1, 5])]));
        let reachable = Reachable::new(&strict(), Some(own));
        let found = |addresses: &'static [[u8; 4]], port: u16| {
            let reachable = reachable.clone();
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| IpAddr::from(*address)).collect();
            PORT.scope(port, async move { reachable.of(addresses, |address| *address).await })
        };
        const BOTH: [[u8; 4]; 2] = [[192, 168, 1, 5], [10, 0, 0, 1]];
        assert_eq!(found(&BOTH, 80).await.expect("one"), [IpAddr::from(BOTH[1])]);
        assert_eq!(found(&BOTH, 8080).await.expect("both").len(), 2);
        let refused = found(&BOTH[..1], 80).await.expect_err("nobody else's");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }

    #[tokio::test(start_paused = true)]
    async fn the_machines_addresses_are_looked_at_every_few_seconds_and_nothing_is_sent_while_they_are_not_known() {
        let (looks, fails) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(false)));
        let (counted, failing) = (looks.clone(), fails.clone());
        let own: MachineAddresses = Arc::new(move || {
            counted.fetch_add(1, Relaxed);
            if *failing.lock().unwrap() { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(Vec::new()) }
        });
        let (reachable, uri) = (Reachable::new(&strict(), Some(own)), Uri::from_static("http://192.168.1.5/"));
        for _ in 0..10 {
            assert!(reachable.has_literal(&uri).await.expect("known"));
        }
        assert_eq!(looks.load(Relaxed), 1);
        *fails.lock().unwrap() = true;
        tokio::time::advance(FRESH).await;
        let error = reachable.has_literal(&uri).await.expect_err("not known");
        assert!(error.to_string().contains("which addresses it has"), "{error}");
    }
}
