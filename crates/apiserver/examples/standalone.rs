//! Serves the API on a loopback port over a temporary store: `standalone <directory> <port>`.

use std::{error::Error, path::Path, sync::Arc};

use jiff::Timestamp;
use knoll_apiserver::{
    ApiServer, Config,
    auth::{LocalAuthority, Pki, TokenKey, kubeconfig},
    node_backend::NoNode,
};
use knoll_store::{Options, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("a directory is needed")?;
    let port: u16 = arguments.next().ok_or("a port is needed")?.parse()?;
    let directory = Path::new(&directory);
    let store = Store::open(&directory.join("store"), Options::default())?;
    let pki = Pki::open(&directory.join("pki"), 2026)?;
    let tokens = TokenKey::from_pem(&pki.token_key_pem()?, "https://kubernetes.default.svc")?;
    let config = Config {
        authority: Arc::new(LocalAuthority::new(store.clone(), tokens, Timestamp::now)),
        node: Arc::new(NoNode),
        root_ca: pki.ca_pem().to_owned(),
        advertise: ([127, 0, 0, 1], port).into(),
    };
    let server = ApiServer::new(store, config);
    server.bootstrap().await?;
    let (certificate, key) = pki.client("kubernetes-admin", "system:masters", 2026)?;
    let url = format!("https://127.0.0.1:{port}");
    std::fs::write(
        directory.join("kubeconfig"),
        kubeconfig(&url, pki.ca_pem(), "kubernetes-admin", &certificate, &key),
    )?;
    let tls = pki.server_tls(&["127.0.0.1".into(), "localhost".into()], 2026)?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    server.serve_tls(listener, Arc::new(tls), std::future::pending()).await;
    Ok(())
}
