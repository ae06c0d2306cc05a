//! Listening sockets that a server leaves with the monitor. Needs root.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use knoll_container::protocol::{ListenerName, MAX_LISTENERS, RefusalKind};
use support::Site;

const FILE: u8 = 5;

fn name(text: &str) -> ListenerName {
    ListenerName::new(text).unwrap()
}

/// A test beside this one that starts its monitor just then holds a copy of every socket of the process until its child's
/// `exec`: waits until nobody does.
async fn refused_in_the_end(address: SocketAddr) {
    let end = Instant::now() + support::PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "somebody still listens at {address}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn connections_wait_in_a_listener_while_its_server_restarts() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    client.keep_listeners(vec![(name("gateway"), listener.into())]).await.unwrap();
    drop(client);
    // Nobody serves it now.
    let mut waiting = TcpStream::connect(address).unwrap();
    waiting.write_all(b"hello").unwrap();

    let client = site.connect().await;
    let mut back = client.listeners().await.unwrap();
    assert_eq!(back.len(), 1);
    let (kept, socket) = back.remove(0);
    assert_eq!(kept, name("gateway"));
    let (mut accepted, _) = TcpListener::from(socket).accept().unwrap();
    let mut text = [0; 5];
    accepted.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");

    client.drop_listeners(vec![name("gateway"), name("never")]).await.unwrap();
    assert!(client.listeners().await.unwrap().is_empty());
    refused_in_the_end(address).await;
    site.finish(&client).await;
}

#[tokio::test]
async fn a_listener_ends_with_the_monitor() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    client.keep_listeners(vec![(name("gateway"), listener.into())]).await.unwrap();
    client.shutdown(false).await.unwrap();
    refused_in_the_end(address).await;
    let client = site.connect().await;
    assert!(client.listeners().await.unwrap().is_empty());
    site.finish(&client).await;
}

#[tokio::test]
async fn only_listeners_are_kept_and_not_too_many() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let copy = || OwnedFd::from(listener.try_clone().unwrap());
    for stranger in [
        OwnedFd::from(std::fs::File::open("/dev/null").unwrap()),
        TcpStream::connect(listener.local_addr().unwrap()).unwrap().into(),
    ] {
        let both = vec![(name("good"), copy()), (name("bad"), stranger)];
        let error = client.keep_listeners(both).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (Some(RefusalKind::Invalid), "bad is no listening socket".into())
        );
    }
    assert!(client.listeners().await.unwrap().is_empty());
    let names = (0..MAX_LISTENERS).map(|number| name(&format!("n{number}")));
    client.keep_listeners(names.map(|name| (name, copy())).collect()).await.unwrap();
    assert_eq!(client.listeners().await.unwrap().len(), MAX_LISTENERS);
    let error = client.keep_listeners(vec![(name("more"), copy())]).await.unwrap_err();
    assert_eq!(error.kind(), Some(RefusalKind::Exhausted));
    // Another one of a name that is there, and of the other kind.
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.keep_listeners(vec![(name("n0"), datagrams.into())]).await.unwrap();
    site.finish(&client).await;
}
