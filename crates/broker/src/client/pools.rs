//! Connections to subscribers: plain ones in one pool, those over TLS in a pool for each bundle of certificates to trust,
//! so that no connection is used by whom another trusts. When what everybody is to trust changes, all begin anew.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use knoll_bounds::Cache;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{Resolver, reachable::ToPort};
use crate::{Config, Transport, transport::Trusted};

/// Bundles whose pools are kept, and one part in so many of them for those that one namespace was first to use.
const MOST_BUNDLES: usize = 256;
const BUNDLE_PARTS: usize = 8;

/// Bytes of an answer that a connection holds of which nobody has read yet, and of its head.
const UNREAD: u32 = 128 << 10;
/// The same of all answers on one HTTP/2 connection.
const UNREAD_OF_ALL: u32 = 1 << 20;
/// How long a connection is silent before the other side is asked whether it is there, and between two such questions;
/// with [`KEEPALIVE_PROBES`] unanswered ones the connection is over. As Go's dialer, and so upstream: who went away without a
/// word after it took a request is waited for no longer than that.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 9;

type Connector = ToPort<HttpConnector<Resolver>>;
type Secure = Pool<HttpsConnector<Connector>, Full<Bytes>>;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum PoolError {
    /// What is to be trusted cannot be.
    #[error("the certificates to trust are none: {0}")]
    Trust(String),
    /// The exchange failed.
    #[error(transparent)]
    Exchange(#[from] Error),
}

/// See the module.
pub(super) struct Pools {
    config: Config,
    connector: Connector,
    plain: Pool<Connector, Full<Bytes>>,
    transport: Transport,
    secure: Mutex<Trusting>,
}

/// Pools by the bundle of the destination, all of which trust these besides.
struct Trusting {
    trusted: Trusted,
    pools: Cache<Arc<str>, Option<Arc<str>>, Secure>,
}

impl Trusting {
    fn new(trusted: Trusted) -> Self {
        Self { trusted, pools: Cache::new(MOST_BUNDLES, BUNDLE_PARTS) }
    }
}

impl Pools {
    pub(super) fn new(config: &Config, resolver: Resolver, transport: Transport) -> Self {
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        connector.set_connect_timeout(Some(config.connect_timeout));
        let plain = builder(config).build(ToPort(connector.clone()));
        connector.enforce_http(false);
        let connector = ToPort(connector);
        let secure = Mutex::new(Trusting::new(transport.trusted()));
        Self { config: config.clone(), connector, plain, transport, secure }
    }

    /// Sends a request over TLS where its address says so, trusting the system's certificates, those that
    /// everybody is to trust, and `bundle`; for a namespace.
    pub(super) async fn request(
        &self,
        request: Request<Full<Bytes>>,
        bundle: Option<&Arc<str>>,
        whose: &Arc<str>,
    ) -> Result<Response<Incoming>, PoolError> {
        if request.uri().scheme_str() == Some("https") {
            return Ok(self.secure(bundle.cloned(), whose).await?.request(request).await?);
        }
        Ok(self.plain.request(request).await?)
    }

    async fn secure(&self, bundle: Option<Arc<str>>, whose: &Arc<str>) -> Result<Secure, PoolError> {
        let trusted = self.transport.trusted();
        if let Some(pool) = self.trusting(&trusted).pools.get(&bundle) {
            return Ok(pool.clone());
        }
        // The system's certificates are many files.
        let (own, all) = (bundle.clone(), trusted.clone());
        let tls = tokio::task::spawn_blocking(move || tls(own.as_deref(), &all)).await;
        let tls = tls.map_err(|error| PoolError::Trust(error.to_string()))?.map_err(PoolError::Trust)?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_all_versions()
            .wrap_connector(self.connector.clone());
        let pools = &mut self.trusting(&trusted).pools;
        // Another one may have been as fast.
        if let Some(pool) = pools.get(&bundle) {
            return Ok(pool.clone());
        }
        let pool: Secure = builder(&self.config).build(connector);
        pools.keep(whose.clone(), bundle, pool.clone());
        Ok(pool)
    }

    /// The pools that trust these; those of others are left to whoever uses them still.
    fn trusting(&self, trusted: &Trusted) -> MutexGuard<'_, Trusting> {
        let mut secure = self.secure.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&secure.trusted, trusted) {
            *secure = Trusting::new(trusted.clone());
        }
        secure
    }
}

fn builder(config: &Config) -> hyper_util::client::legacy::Builder {
    let mut builder = Pool::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(config.idle_timeout)
        .pool_max_idle_per_host(config.idle_per_subscriber)
        .http1_max_buf_size(UNREAD as usize)
        .http2_max_header_list_size(UNREAD)
        .http2_initial_stream_window_size(UNREAD)
        .http2_initial_connection_window_size(UNREAD_OF_ALL);
    builder
}

/// Settings that trust the system's certificates, those of `trusted` that can be trusted at all, and all of `bundle`.
fn tls(bundle: Option<&str>, trusted: &Trusted) -> Result<ClientConfig, String> {
    let mut roots = system().clone();
    roots.add_parsable_certificates(trusted.iter().cloned());
    for certificate in CertificateDer::pem_slice_iter(bundle.unwrap_or_default().as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The certificates that the machine trusts, read once.
fn system() -> &'static RootCertStore {
    static SYSTEM: OnceLock<RootCertStore> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "read a certificate that the system trusts");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{super::Reachable, *};

    #[tokio::test]
    async fn bundles_of_one_namespace_leave_the_pools_of_others_as_they_are() {
        let config = Config::default();
        let resolve: crate::Resolve = Arc::new(|_| Box::pin(async { Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]) }));
        let resolver = Resolver { resolve, reachable: Reachable::new(&config, None) };
        let pools = Pools::new(&config, resolver, Transport::default());
        let certificate = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).expect("a certificate").cert.pem();
        let bundle = |name: &str| Some(format!("{name}\n{certificate}").into());
        pools.secure(bundle("good"), &"good".into()).await.expect("a pool");
        pools.secure(None, &"good".into()).await.expect("a pool");
        for number in 0..=MOST_BUNDLES {
            pools.secure(bundle(&number.to_string()), &"evil".into()).await.expect("a pool");
        }
        let trusted = pools.transport.trusted();
        let kept = &mut pools.trusting(&trusted).pools;
        assert!(kept.get(&bundle("good")).is_some() && kept.get(&None).is_some());
        assert_eq!(kept.len(), 2 + MOST_BUNDLES / BUNDLE_PARTS);
    }
}
