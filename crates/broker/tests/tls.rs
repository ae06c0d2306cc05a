//! Deliveries over TLS.

mod world;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use knoll_broker::{
    Topology,
    delivery::Destination,
    topology::{Subscriber, Subscription},
};
use knoll_event::{knative, mode};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
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
