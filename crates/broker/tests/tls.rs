//! Events over TLS: as they are delivered, and as they are taken.

mod world;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use knoll_api::config::eventing::TransportEncryption;
use knoll_broker::{
    Config, Hooks, Topology, Transport,
    delivery::Destination,
    serve, serve_tls,
    topology::{Subscriber, Subscription},
};
use knoll_event::{Event, knative, mode};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};
use world::*;

type Runs = Result<(), Box<dyn std::error::Error>>;

/// A server with a certificate that it signed itself: its address, the certificate, and the ids of what it is sent.
async fn server() -> Result<(std::net::SocketAddr, String, mpsc::UnboundedReceiver<String>), Box<dyn std::error::Error>>
{
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, tell) = (acceptor.clone(), tell.clone());
            tokio::spawn(async move {
                // Who does not trust the certificate ends the connection.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let tell = tell.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let event = mode::read(&head.headers, body.collect().await?.to_bytes()).expect("an event");
                        tell.send(format!("{:?} {}", head.version, event.id())).expect("somebody listens");
                        Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default()))
                    }
                });
                drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    Ok((address, made.cert.pem(), told))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscribers_own_certificate_is_trusted_by_whom_it_was_given_to_and_by_nobody_else() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let (address, certificate, mut told) = server().await?;
    let destination = Destination::new(format!("https://localhost:{}/", address.port()).parse()?);
    let with_certs = |certs: &str| Destination { ca_certs: Some(certs.into()), ..destination.clone() };
    let at = |name: &str, destination| Subscription { subscriber: Subscriber::At(destination), ..to(&sinks, name) };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let subscriptions = vec![
        at("trusts", with_certs(&certificate)),
        at("does-not", destination.clone()),
        at("cannot", with_certs(broken)),
    ];
    let world = World::start(directory.path(), with(Topology::default(), &b, subscriptions));
    world.ready(&["trusts", "does-not", "cannot"]).await;
    world.number(&b, 1, "t").await;
    assert_eq!(told.recv().await.as_deref(), Some("HTTP/2.0 1"));
    until("the others are kept", || world.plane.dead_letter_count(&b) == 2).await;
    let letters = world.plane.dead_letters(&b, 0, 9).await?.letters;
    for (uid, code) in [("does-not", "500"), ("cannot", "-1")] {
        let letter = letters.iter().find(|letter| &*letter.subscription == uid).expect("kept");
        assert_eq!(text(&letter.event, knative::ERROR_CODE).as_deref(), Some(code), "{uid}");
    }
    assert!(told.try_recv().is_err());
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_everybody_trusts_counts_from_the_next_attempt_on() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let (address, certificate, mut told) = server().await?;
    let at = Subscriber::At(Destination::new(format!("https://localhost:{}/", address.port()).parse()?));
    let subscription = Subscription { subscriber: at, ..to(&sinks, "t") };
    let transport = Transport::default();
    let hooks = Hooks { transport: transport.clone(), ..Hooks::default() };
    let topology = with(Topology::default(), &b, vec![subscription]);
    let world = World::start_with(directory.path(), topology, options(), Config::default(), hooks);
    world.ready(&["t"]).await;
    world.number(&b, 1, "t").await;
    until("it is not trusted", || world.plane.dead_letter_count(&b) == 1).await;
    transport.trust([certificate.as_bytes()]);
    world.number(&b, 2, "t").await;
    assert_eq!(told.recv().await.as_deref(), Some("HTTP/2.0 2"));
    assert_eq!(world.plane.dead_letter_count(&b), 1);
    world.finish().await;
    Ok(())
}

const BROKERS: &str = "broker-ingress.knative-eventing.svc.cluster.local";
const CHANNELS: &str = "imc-dispatcher.knative-eventing.svc.cluster.local";

/// A certificate of its own for a host, and its key; PEM.
fn certified(host: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A connection of a sender that trusts these certificates.
async fn connect(
    port: u16,
    host: &'static str,
    trusted: &[&str],
) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    for pem in trusted {
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, stream).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn plain(port: u16) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error>> {
    let (sender, connection) = handshake(TokioIo::new(TcpStream::connect(("127.0.0.1", port)).await?)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    host: &str,
    path: &str,
) -> Result<StatusCode, Box<dyn std::error::Error>> {
    let event = Event::new("1", "/sender", "t").expect("an event");
    let mut headers = HeaderMap::new();
    let body = mode::write(&event, mode::Format::Binary, &mut headers);
    let mut request = Request::post(path).header("host", host).body(Full::from(body))?;
    request.headers_mut().extend(headers);
    sender.ready().await?;
    Ok(sender.send_request(request).await?.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_are_answered_over_what_the_feature_says_with_the_newest_certificate_of_the_name_they_ask_for() -> Runs
{
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let topology = with(Topology::default(), &broker("b"), vec![to(&sinks, "t")]);
    let topology = with(topology, &channel("c"), vec![]);
    let transport = Transport::default();
    let hooks = Hooks { transport: transport.clone(), ..Hooks::default() };
    let world = World::start_with(directory.path(), topology, options(), Config::default(), hooks);
    world.ready(&["t"]).await;
    let (http, https) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let (http_port, https_port) = (http.local_addr()?.port(), https.local_addr()?.port());
    let (end, ended) = oneshot::channel::<()>();
    let ingress = world.plane.ingress();
    let serving = tokio::spawn(async move {
        let both = async {
            tokio::join!(
                serve(ingress.clone(), http, Box::pin(std::future::pending())),
                serve_tls(ingress, https, Box::pin(std::future::pending()))
            )
        };
        tokio::select! { _ = both => {} _ = ended => {} }
    });

    assert!(connect(https_port, BROKERS, &[]).await.is_err(), "there is no certificate yet");
    let (of_brokers, of_channels) = (certified(BROKERS), certified(CHANNELS));
    for (service, (certificate, key)) in [("broker-ingress", &of_brokers), ("imc-dispatcher", &of_channels)] {
        transport.present(service, certificate.as_bytes(), key.as_bytes())?;
    }
    let mut over_http = plain(http_port).await?;
    let mut over_https = connect(https_port, BROKERS, &[&of_brokers.0]).await?;
    for (encryption, plain, secure) in [
        (TransportEncryption::Disabled, 202, 404),
        (TransportEncryption::Permissive, 202, 202),
        (TransportEncryption::Strict, 404, 202),
    ] {
        transport.encrypt(encryption);
        assert_eq!(post(&mut over_http, BROKERS, "/ns/b").await?, plain, "{encryption:?} over http");
        assert_eq!(post(&mut over_https, BROKERS, "/ns/b").await?, secure, "{encryption:?} over https");
    }
    assert_eq!(post(&mut over_http, BROKERS, "/").await?, 404);

    // Each name has its own certificate, and no sender takes one for another.
    let mut to_channels = connect(https_port, CHANNELS, &[&of_channels.0]).await?;
    assert_eq!(post(&mut to_channels, CHANNELS, "/ns/c").await?, 202);
    assert!(connect(https_port, CHANNELS, &[&of_brokers.0]).await.is_err());

    // A new one is presented from the next handshake on, and what is open goes on.
    let renewed = certified(BROKERS);
    transport.present("broker-ingress", renewed.0.as_bytes(), renewed.1.as_bytes())?;
    assert!(transport.present("broker-ingress", b"", b"").is_err());
    assert!(connect(https_port, BROKERS, &[&of_brokers.0]).await.is_err());
    let mut again = connect(https_port, BROKERS, &[&renewed.0]).await?;
    assert_eq!(post(&mut again, BROKERS, "/ns/b").await?, 202);
    assert_eq!(post(&mut over_https, BROKERS, "/ns/b").await?, 202);
    drop((over_http, over_https, to_channels, again, end));
    serving.await?;
    world.finish().await;
    Ok(())
}
