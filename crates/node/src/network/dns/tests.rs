use std::io::{Read, Write};

use knoll_api::Key;

use super::*;
use packet::question;

const PATIENCE: Duration = Duration::from_secs(10);

fn callbacks() -> Callbacks {
    Callbacks {
        on_instance: Arc::new(|_| ()),
        drained: Arc::new(|_| None),
        change_services: Arc::new(|_| Ok(())),
        reconnect: Arc::new(|| Box::pin(async { Err(knoll_container::client::ClientError::Closed) })),
        rush: knoll_client::rush::Rush::default(),
        gateway_serves: Arc::new(|host, _| {
            assert!(!host.starts_with("boom."), "a gateway that panics");
            false
        }),
    }
}

/// A server with one Service and no resolvers: where it listens for UDP and for TCP.
async fn server() -> (SocketAddr, SocketAddr, Arc<Answering>) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let udp = Arc::new(UdpSocket::bind(any).await.expect("binds"));
    let address = udp.local_addr().expect("bound");
    let tcp = TcpListener::bind(any).await.expect("binds");
    let over_tcp = tcp.local_addr().expect("bound");
    let service = ServiceNames::Address { address: Ipv4Addr::new(10, 96, 0, 9), ports: Vec::new() };
    let names = Names { services: [(Key::new("ns", "a"), Arc::new(service))].into_iter().collect() };
    let counters = Arc::new(Counters::default());
    let answering = Arc::new(Answering {
        domain: "cluster.local".into(),
        gateway: Ipv4Addr::new(169, 254, 77, 1),
        names: watch::Sender::new(Arc::new(names)).subscribe(),
        pods: Arc::default(),
        callbacks: callbacks(),
        forwarder: Forwarder::new("/nonexistent".into(), address, Arc::clone(&counters)),
        clients: Arc::default(),
        slots: Arc::new(Semaphore::new(PARALLEL)),
        counters,
    });
    let server = Server { udp, tcp, answering: Arc::clone(&answering) };
    tokio::spawn(async move { server.run().await });
    (address, over_tcp, answering)
}

async fn ask(address: SocketAddr, name: &str) -> Vec<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
    socket.send_to(&question(7, name, kind::A), address).await.expect("sends");
    let mut buffer = vec![0; LARGEST];
    let (length, _) =
        tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await.expect("an answer").expect("receives");
    buffer.truncate(length);
    buffer
}

#[tokio::test]
async fn a_question_that_panics_costs_itself_twice_and_no_other() {
    let (address, _, answering) = server().await;
    for _ in 0..2 {
        let answer = ask(address, "boom.ns.svc.cluster.local").await;
        assert_eq!((answer[..2].to_vec(), answer[3] & 0xf), (vec![0, 7], code::FAILURE));
    }
    let answer = ask(address, "a.ns.svc.cluster.local").await;
    assert_eq!(packet::addresses(&answer), [Ipv4Addr::new(10, 96, 0, 9)]);
    assert_eq!(answering.counters.read().panics, 2);
}

#[tokio::test]
async fn a_client_holds_its_share_of_connections_and_no_more() {
    let (_, address, answering) = server().await;
    let counters = Arc::clone(&answering);
    let served = tokio::task::spawn_blocking(move || {
        let mut held: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(address).expect("connects")).collect();
        let asked = question(7, "a.ns.svc.cluster.local", kind::A);
        let framed = [&u16::try_from(asked.len()).expect("short").to_be_bytes()[..], &asked].concat();
        let mut answered = 0;
        for stream in &mut held {
            stream.set_read_timeout(Some(PATIENCE)).expect("sets");
            let mut length = [0; 2];
            answered += u32::from(stream.write_all(&framed).and_then(|()| stream.read_exact(&mut length)).is_ok());
        }
        answered
    });
    assert_eq!(served.await.expect("no panic"), 32);
    assert_eq!(counters.counters.read().dns_throttled, 68);
}

#[tokio::test]
async fn a_question_longer_than_any_is_not_waited_for() {
    let (_, address, _) = server().await;
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(&u16::MAX.to_be_bytes()).await.expect("writes");
    let end = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an end");
    assert!(end.is_err());
}

/// Reads until the server hangs up, and says after how long that was.
async fn hung_up(stream: &mut TcpStream) -> Duration {
    let begin = tokio::time::Instant::now();
    let mut rest = Vec::new();
    tokio::time::timeout(2 * LIFE, stream.read_to_end(&mut rest)).await.expect("an end").ok();
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_or_half_or_never_ends_gives_its_place_back() {
    let (_, address, answering) = server().await;
    let connect = async || TcpStream::connect(address).await.expect("connects");
    let mut silent = connect().await;
    let waited = hung_up(&mut silent).await;
    assert!(waited >= IDLE && waited < LIFE, "{waited:?}");

    let asked = question(7, "a.ns.svc.cluster.local", kind::A);
    let framed = [&u16::try_from(asked.len()).expect("short").to_be_bytes()[..], &asked].concat();
    let mut halting = connect().await;
    halting.write_all(&framed[..framed.len() - 1]).await.expect("writes");
    let waited = hung_up(&mut halting).await;
    assert!(waited >= TRANSFER && waited < LIFE, "{waited:?}");

    let (mut lasting, begin) = (connect().await, tokio::time::Instant::now());
    loop {
        if lasting.write_all(&framed).await.is_err() {
            break;
        }
        let Ok(length) = lasting.read_u16().await else { break };
        let mut answer = vec![0; usize::from(length)];
        lasting.read_exact(&mut answer).await.expect("the rest");
        tokio::time::sleep(IDLE / 2).await;
        assert!(begin.elapsed() < 2 * LIFE, "it is served for ever");
    }
    assert!(begin.elapsed() >= LIFE, "{:?}", begin.elapsed());
    while answering.slots.available_permits() < PARALLEL {
        tokio::task::yield_now().await;
    }
}
