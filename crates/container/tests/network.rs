//! Sandboxes on the network: each other, the host, services, the outside. Needs root and busybox-static.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::time::Duration;

use knoll_container::client::Client;
use knoll_container::network::{self, Config, HostNetwork, ServiceChanges, ServiceRule, Transport};
use support::{PATIENCE, Site, interfaces, sandbox_id, until};

const FILE: u8 = 1;
const SERVICES: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 12);

fn config(site: &Site) -> Config {
    Config {
        table: "knoll".into(),
        pods: (site.network.address, site.network.prefix),
        services: SERVICES,
        gateway: site.network.gateway,
        veth_prefix: site.network.interface_prefix.clone(),
    }
}

/// A pod whose web server on port 8080 says its name.
async fn server(site: &Site, client: &Client, name: &str) -> Ipv4Addr {
    let address = site.pod(client, name).await;
    let script = format!("echo {name} > /tmp/index.html; echo up; exec httpd -f -p 8080 -h /tmp");
    site.start(client, name, name, &script).await;
    site.wait_for_output(name, "up").await;
    until("the server listens", || get(SocketAddrV4::new(address, 8080)).is_ok()).await;
    address
}

fn get(address: SocketAddrV4) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.rsplit("\r\n\r\n").next().unwrap_or("").trim().to_owned())
}

fn service(last: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, last), 80)
}

fn rule(service: SocketAddrV4, endpoints: &[Ipv4Addr]) -> ServiceRule {
    let endpoints = endpoints.iter().map(|address| SocketAddrV4::new(*address, 8080)).collect();
    ServiceRule { service, protocol: Transport::Tcp, endpoints, by_client: false }
}

fn set_up(site: &Site) -> HostNetwork {
    network::setup(config(site)).expect("a host network")
}

async fn tear_down(site: Site, client: &Client) {
    let config = config(&site);
    site.finish(client).await;
    network::teardown(&config).expect("a teardown");
    network::teardown(&config).expect("a second teardown");
}

#[tokio::test]
async fn pods_reach_each_other_the_host_and_the_host_them() {
    let site = Site::isolated(FILE);
    let _network = set_up(&site);
    let client = site.networked(0).await;
    let one = server(&site, &client, "one").await;
    let two = site.pod(&client, "two").await;
    assert_ne!(one, two);
    let script = format!(
        "ping -c 1 -W 2 {gateway} > /dev/null && echo gateway; ping -c 1 -W 2 {one} > /dev/null && echo pod; \
         printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 {one} 8080 | tail -n 1; hostname; ip -o addr show eth0 | awk '{{ print $4 }}'; ip route | wc -l",
        gateway = site.network.gateway,
    );
    let (_, output) = site.run(&client, site.spec("two", "two", &script)).await;
    assert_eq!(output, format!("gateway\npod\none\ntwo\n{two}/32\n2\n"));
    assert_eq!(get(SocketAddrV4::new(one, 8080)).unwrap(), "one");
    let forwarded = client.socket(sandbox_id("one")).await.unwrap();
    let stream = forwarded.connect("127.0.0.1:8080".parse().unwrap()).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().port(), 8080);
    // A socket keeps the network it lives in.
    drop(stream);
    // Whoever still knows a pod that is gone is told so at once, and its neighbours are not asked.
    client.remove_sandbox(sandbox_id("one")).await.unwrap();
    let unreachable = |error: std::io::Error| error.kind() == std::io::ErrorKind::HostUnreachable;
    until("nobody is there", || get(SocketAddrV4::new(one, 8080)).is_err_and(unreachable)).await;
    tear_down(site, &client).await;
}

#[tokio::test]
async fn what_somebody_else_takes_away_is_put_back() {
    let site = Site::isolated(FILE);
    let mut network = set_up(&site);
    let client = site.networked(0).await;
    let red = server(&site, &client, "red").await;
    network.set_services(&[rule(service(1), &[red])]).unwrap();
    assert_eq!(get(service(1)).unwrap(), "red");
    // As somebody does who flushes all firewalls.
    let flush = Config { gateway: Ipv4Addr::new(169, 254, 99, 99), ..config(&site) };
    for _ in 0..2 {
        network::teardown(&flush).unwrap();
        assert!(get(service(1)).is_err());
        network.change_services(&ServiceChanges::default()).unwrap();
        assert_eq!(get(service(1)).unwrap(), "red");
    }
    tear_down(site, &client).await;
}

#[tokio::test]
async fn services_lead_to_their_endpoints_from_everywhere() {
    let site = Site::isolated(FILE);
    let mut network = set_up(&site);
    let client = site.networked(0).await;
    let red = server(&site, &client, "red").await;
    let blue = server(&site, &client, "blue").await;
    let (single, both, nobody, sticky) = (service(1), service(2), service(3), service(4));
    let mut by_client = rule(sticky, &[red, blue]);
    by_client.by_client = true;
    let rules = [rule(single, &[red]), rule(both, &[red, blue]), rule(nobody, &[]), by_client];
    network.set_services(&rules).unwrap();

    assert_eq!(get(single).unwrap(), "red");
    let mut seen: Vec<String> = (0..40).map(|_| get(both).unwrap()).collect();
    let first = get(sticky).unwrap();
    assert!((0..20).all(|_| get(sticky).unwrap() == first));
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["blue", "red"]);
    for unclaimed in [nobody, service(99)] {
        assert_eq!(get(unclaimed).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
    // From a pod; red reaches itself too.
    let ask = |at: SocketAddrV4| {
        format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {} {} 2>&1 | tail -n 1", at.ip(), at.port())
    };
    let script = format!("{}; {}", ask(single), ask(nobody));
    let (_, output) = site.run(&client, site.spec("red", "inside-red", &script)).await;
    assert!(output.starts_with("red\n") && output.contains("refused"), "{output}");
    let (_, output) = site.run(&client, site.spec("blue", "inside-blue", &script)).await;
    assert!(output.starts_with("red\n"), "{output}");

    // Changes, one after the other, and a restart of whoever set them.
    network.set_services(&[rule(single, &[blue]), rule(both, &[blue, red])]).unwrap();
    assert_eq!(get(single).unwrap(), "blue");
    assert_eq!(get(sticky).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    network.set_services(&[rule(single, &[red, blue]), rule(both, &[blue])]).unwrap();
    assert!((0..10).all(|_| get(both).unwrap() == "blue"));
    drop(network);
    let mut network = set_up(&site);
    assert_eq!(get(both).unwrap(), "blue");
    network.set_services(&[rule(both, &[red])]).unwrap();
    assert_eq!(get(both).unwrap(), "red");
    network.set_services(&[]).unwrap();
    assert_eq!(get(both).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    tear_down(site, &client).await;
}

#[tokio::test]
async fn datagrams_and_the_hosts_own_servers_have_services_too() {
    let site = Site::isolated(FILE);
    let mut network = set_up(&site);
    let client = site.networked(0).await;
    let listener = UdpSocket::bind((site.network.gateway, 0)).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let to = SocketAddrV4::new(site.network.gateway, listener.local_addr().unwrap().port());
    let at = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 69);
    let rule = ServiceRule { service: at, protocol: Transport::Udp, endpoints: vec![to], by_client: false };
    network.set_services(&[rule]).unwrap();
    let pod = site.pod(&client, "asks").await;
    site.start(&client, "asks", "asks", "tftp -g -r question -l /tmp/x 10.96.0.10").await;
    let mut buffer = [0; 64];
    let (length, from) = listener.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..11], from.ip()), (&b"\0\x01question\0"[..], pod.into()), "{length}");
    tear_down(site, &client).await;
}

#[tokio::test]
async fn a_pod_sends_from_its_own_address_only() {
    let site = Site::isolated(FILE);
    let _network = set_up(&site);
    let client = site.networked(0).await;
    let honest = site.pod(&client, "honest").await;
    let liar = site.pod(&client, "liar").await;
    let listener = UdpSocket::bind((site.network.gateway, 0)).unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let (gateway, port) = (site.network.gateway, listener.local_addr().unwrap().port());
    let outside = Ipv4Addr::new(198, 51, 100, 7);
    // Each datagram is on the veth before the next address is taken.
    let script = format!(
        r#"
        sent() {{ cat /sys/class/net/eth0/statistics/tx_packets; }}
        for address in {honest} {outside} {liar}; do
            ip addr add $address/32 dev eth0 2>/dev/null
            ip route replace default via {gateway} dev eth0 src $address
            ip route replace {gateway} dev eth0 src $address
            before=$(sent)
            tftp -g -r from-$address -l /tmp/x {gateway} {port} 2>/dev/null &
            while [ $(sent) = $before ]; do sleep 0.01; done
            kill $!; wait $! 2>/dev/null
            [ $address = {liar} ] || ip addr del $address/32 dev eth0
        done
        echo done
        "#
    );
    let mut spec = site.spec("liar", "liar", &script);
    spec.security.capabilities.add = vec!["NET_ADMIN".into()];
    let (_, output) = site.run(&client, spec).await;
    assert!(output.ends_with("done\n"), "{output}");
    let mut buffer = [0; 128];
    let (length, from) = listener.recv_from(&mut buffer).unwrap();
    assert_eq!(from.ip(), liar);
    let name = String::from_utf8_lossy(&buffer[2..length]).into_owned();
    assert!(name.starts_with(&format!("from-{liar}")), "{name}");
    tear_down(site, &client).await;
}

/// A neighbour, 192.0.2.2, of the machine, 192.0.2.1.
struct Outside(Child);

impl Outside {
    /// Its one program.
    async fn runs(words: &[&str]) -> Outside {
        let outside = Outside(Command::new("unshare").arg("--net").args(words).spawn().expect("unshare"));
        let pid = outside.0.id();
        let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
        until("it has its own network", || fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns != ours))
            .await;
        command(&format!("ip link add kout type veth peer name kin netns {pid}"));
        command("ip addr add 192.0.2.1/24 dev kout");
        command("ip link set kout up");
        outside.command("ip addr add 192.0.2.2/24 dev kin");
        outside.command("ip link set kin up");
        outside
    }

    fn command(&self, words: &str) {
        command(&format!("nsenter -t {} -n {words}", self.0.id()));
    }

    /// Whether it can connect.
    fn reaches(&self, address: Ipv4Addr, port: u16) -> bool {
        let pid = self.0.id().to_string();
        let connect = format!("exec 3<>/dev/tcp/{address}/{port}");
        let words = ["-t", &pid, "-n", "timeout", "1", "bash", "-c", &connect];
        Command::new("nsenter").args(words).output().expect("nsenter").status.success()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.0.kill().expect("a kill");
        self.0.wait().expect("an end");
    }
}

fn command(words: &str) {
    let mut words = words.split(' ');
    let program = words.next().expect("a program");
    let outcome = Command::new(program).args(words.clone()).status().expect("a command");
    assert!(outcome.success(), "{program} {words:?}");
}

#[tokio::test]
async fn pods_leave_the_machine_under_its_address() {
    let site = Site::isolated(FILE);
    let _network = set_up(&site);
    let client = site.networked(0).await;
    // A neighbour that knows no way back to pods.
    let web = site.dir.path().join("web");
    fs::create_dir(&web).unwrap();
    fs::write(web.join("index.html"), "outside\n").unwrap();
    let web = web.to_str().expect("text");
    let _outside = Outside::runs(&["busybox", "httpd", "-f", "-p", "80", "-h", web]).await;
    site.pod(&client, "leaves").await;
    let script = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 192.0.2.2 80 | tail -n 1";
    let (exit, output) = site.run(&client, site.spec("leaves", "leaves", script)).await;
    assert_eq!((exit.code, output.as_str()), (0, "outside\n"));
    tear_down(site, &client).await;
}

#[tokio::test]
async fn a_neighbour_finds_no_way_in() {
    let site = Site::isolated(FILE);
    let mut network = set_up(&site);
    let client = site.networked(0).await;
    let pod = server(&site, &client, "shy").await;
    network.set_services(&[rule(service(7), &[pod])]).unwrap();
    assert_eq!(get(SocketAddrV4::new(pod, 8080)).expect("the machine itself"), "shy");
    let neighbour = Outside::runs(&["sleep", "600"]).await;
    for inner in [pod, service(7).ip().to_owned(), site.network.gateway] {
        neighbour.command(&format!("ip route add {inner} via 192.0.2.1"));
    }
    let ours = TcpListener::bind((site.network.gateway, 8080)).unwrap();
    for (address, port) in [(pod, 8080), (*service(7).ip(), 80), (site.network.gateway, 8080)] {
        assert!(!neighbour.reaches(address, port), "{address}:{port}");
    }
    // The same way leads to what the machine offers, and to services it publishes on its own address.
    let published = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 8081);
    network.set_services(&[rule(service(7), &[pod]), rule(published, &[pod])]).unwrap();
    let offered = TcpListener::bind("192.0.2.1:8080").unwrap();
    assert!(neighbour.reaches(*published.ip(), 8080) && neighbour.reaches(*published.ip(), 8081));
    drop((ours, offered));
    tear_down(site, &client).await;
}

#[tokio::test]
async fn the_pool_hands_out_namespaces_and_fills_up_again() {
    let site = Site::isolated(FILE);
    let client = site.networked(3).await;
    let prefix = site.network.interface_prefix.clone();
    let full = async || {
        let filled = async {
            while client.list().await.unwrap().pooled < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, filled).await.expect("the pool fills up");
    };
    full().await;
    assert_eq!(interfaces(&prefix).len(), 3);
    let mut addresses = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        addresses.push(site.pod(&client, name).await);
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 6);
    full().await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        client.remove_sandbox(sandbox_id(name)).await.unwrap();
    }
    until("the veths of removed pods go", || interfaces(&prefix).len() == 3).await;
    let again = site.pod(&client, "a").await;
    assert!(!addresses.contains(&again), "an address came back at once");
    site.finish(&client).await;
}

#[tokio::test]
async fn announced_claims_find_sandboxes_and_what_nobody_claims_goes() {
    let site = Site::isolated(FILE);
    let client = site.networked(0).await;
    let prefix = site.network.interface_prefix.clone();
    let pooled = async || {
        let pooled = client.list().await.unwrap().pooled;
        assert!(pooled <= 4, "{pooled} are ready, however many are announced");
        pooled
    };
    // What nobody claims in time goes, so on a busy machine it is announced until somebody has seen it.
    let announced = async |count| {
        let seen = async {
            while pooled().await == 0 {
                client.expect_sandboxes(count).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("sandboxes are made ahead");
    };
    let gone = async || {
        let gone = async {
            while pooled().await != 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("what nobody claims goes");
    };
    announced(2).await;
    site.pod(&client, "a").await;
    gone().await;
    announced(1000).await;
    gone().await;
    client.remove_sandbox(sandbox_id("a")).await.unwrap();
    until("every veth goes", || interfaces(&prefix).is_empty()).await;
    site.finish(&client).await;
}
