//! What a gateway pays for services that nobody asks for: for a table in which one of them changed, and each second
//! at rest. Neither should grow with their number.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use knoll_api::Key;
use knoll_api::table::{Backend, Host, Instance, Path, RevisionPolicy, RoutingTable, Split};
use knoll_proxy::{Config, Gateway, Visibility};
use tokio::sync::watch;

use crate::cpu::Whose;
use crate::figures::{Spread, figure};

/// Numbers of services that are compared.
const SIZES: [usize; 2] = [100, 10_000];
/// Services of them that were asked for once, and have an instance.
const ASKED: usize = 100;
/// Tables published for a median.
const CHANGES: usize = 200;
/// How long the gateway is watched at rest.
const REST: Duration = Duration::from_secs(5);

struct Costs {
    services: usize,
    first: Duration,
    change: Spread,
    change_cpu: f64,
    rest: f64,
}

/// Measures both and tells them side by side.
pub(crate) fn run(upstream: SocketAddr, threads: usize) -> Result<String, Box<dyn Error>> {
    let mut text = String::from(
        "services of a gateway, 100 with traffic once   first table ms   one change us   CPU us a change   CPU us/s at rest\n",
    );
    for services in SIZES {
        let costs = measure(upstream, threads, services)?;
        text.push_str(&format!(
            "{:<46} {:>14} {:>15} {:>17} {:>18}\n",
            costs.services,
            figure(costs.first.as_secs_f64() * 1e3),
            figure(costs.change.at(50.0)),
            figure(costs.change_cpu),
            figure(costs.rest),
        ));
    }
    Ok(text)
}

fn measure(upstream: SocketAddr, threads: usize, services: usize) -> Result<Costs, Box<dyn Error>> {
    let mut table = table(upstream, services);
    let (tables, receiver) = watch::channel(None);
    let (gateway, mut feeds) = Gateway::new(Config { threads, ..Config::default() }, receiver)?;
    std::thread::spawn(move || while feeds.stats.blocking_recv().is_some() {});
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    gateway.serve(listener, Visibility::External)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let applied = gateway.applied();
    let publish = |table: &RoutingTable| {
        let table = Arc::new(table.clone());
        let begun = Instant::now();
        let mut applied = applied.clone();
        tables.send_replace(Some(table.clone()));
        let in_force = |seen: &Option<Arc<RoutingTable>>| seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &table));
        runtime.block_on(applied.wait_for(in_force)).map(|_| begun.elapsed())
    };
    let first = publish(&table)?;
    ask(address, ASKED)?;
    let whose = Whose::OwnThreads("gateway-");
    let before = whose.micros();
    let mut changes = Vec::with_capacity(CHANGES);
    for change in 0..CHANGES {
        // A pod more or less, of a service that is asked for and of one that is not.
        let key = key(if change % 2 == 0 { change % ASKED } else { services - 1 - change % ASKED });
        let mut backend = table.backends.get(&key).map(|backend| Backend::clone(backend)).unwrap_or_default();
        match backend.instances.pop() {
            Some(_) => {}
            None => backend.instances.push(instance(upstream)),
        }
        table.backends.insert(key, Arc::new(backend));
        changes.push(publish(&table)?.as_secs_f64() * 1e6);
    }
    let change_cpu = (whose.micros() - before) / CHANGES as f64;
    let before = whose.micros();
    std::thread::sleep(REST);
    let rest = (whose.micros() - before) / REST.as_secs_f64();
    Ok(Costs { services, first, change: Spread::of(&changes), change_cpu, rest })
}

/// Asks the first `count` services once each.
fn ask(address: SocketAddr, count: usize) -> Result<(), Box<dyn Error>> {
    for number in 0..count {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host(number))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200 ") {
            return Err(format!("{} answered {answer}", host(number)).into());
        }
    }
    Ok(())
}

fn key(number: usize) -> Key {
    Key::new("bench", format!("service-{number}-00001"))
}

fn host(number: usize) -> String {
    format!("service-{number}.bench.example.com")
}

fn instance(upstream: SocketAddr) -> Instance {
    Instance { address: upstream, pod: "pod".into() }
}

fn table(upstream: SocketAddr, services: usize) -> RoutingTable {
    let backend = |number: usize| {
        let policy = RevisionPolicy {
            revision: key(number),
            uid: format!("uid-{number}"),
            timeout: Duration::from_secs(300),
            ..RevisionPolicy::default()
        };
        let instances = if number < ASKED { vec![instance(upstream)] } else { Vec::new() };
        Arc::new(Backend { revision: Some(Arc::new(policy)), instances, ..Backend::default() })
    };
    let route = |number: usize| {
        let splits = vec![Split { percent: 100, service: key(number), append_headers: Vec::new() }];
        let path = Path { prefix: "/".into(), splits, ..Path::default() };
        Arc::new(Host { redirect_to_https: false, paths: vec![path] })
    };
    RoutingTable {
        external: (0..services).map(|number| (host(number), route(number))).collect(),
        local: Default::default(),
        backends: (0..services).map(|number| (key(number), backend(number))).collect(),
    }
}
