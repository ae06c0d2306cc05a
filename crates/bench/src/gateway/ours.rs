//! Our gateway with one revision behind it, its statistics read as the autoscaler would.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use knoll_api::Key;
use knoll_api::table::{Backend, Host, Instance, Path, RevisionPolicy, RoutingTable, Split};
use knoll_proxy::{Config, Gateway, Visibility};
use tokio::sync::watch;

/// A running gateway; stops when dropped.
pub(crate) struct Ours {
    pub(crate) address: SocketAddr,
    _gateway: Gateway,
    _table: watch::Sender<Option<Arc<RoutingTable>>>,
}

/// Starts a gateway in front of `upstream`.
pub(crate) fn start(upstream: SocketAddr, threads: usize, container_concurrency: u32) -> Result<Ours, Box<dyn Error>> {
    let (sender, table) = watch::channel(Some(Arc::new(table(upstream, container_concurrency))));
    let (gateway, mut feeds) = Gateway::new(Config { threads, ..Config::default() }, table)?;
    std::thread::spawn(move || while feeds.stats.blocking_recv().is_some() {});
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    gateway.serve(listener, Visibility::External)?;
    Ok(Ours { address, _gateway: gateway, _table: sender })
}

fn table(upstream: SocketAddr, container_concurrency: u32) -> RoutingTable {
    let key = Key::new("bench", "hello-00001");
    let policy = RevisionPolicy {
        revision: key.clone(),
        uid: "hello".into(),
        container_concurrency,
        timeout: Duration::from_secs(300),
        ..RevisionPolicy::default()
    };
    let backend = Backend {
        revision: Some(Arc::new(policy)),
        instances: vec![Instance { address: upstream, pod: "hello".into() }],
        ..Backend::default()
    };
    let splits = vec![Split { percent: 100, service: key.clone(), append_headers: Vec::new() }];
    let path = Path { prefix: "/".into(), splits, ..Path::default() };
    let host = Host { redirect_to_https: false, paths: vec![path] };
    RoutingTable {
        external: [("127.0.0.1".to_owned(), Arc::new(host))].into_iter().collect(),
        local: Default::default(),
        backends: [(key, Arc::new(backend))].into_iter().collect(),
    }
}
