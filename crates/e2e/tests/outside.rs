//! The machine and what is around it: pods go out as the machine, other machines come in where it says. Each test has
//! an instance of its own, one at a time on the machine.

use std::{
    fs,
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Output},
    thread,
    time::Duration,
};

use knoll_e2e::{Namespace, Own, example, get, scratch, until};
use serde_json::json;

/// The machine's address on the cable to the other one, and the other's.
const HERE: &str = "203.0.113.1";
const THERE: &str = "203.0.113.2";
/// The cable's end here.
const CABLE: &str = "e2e-outside";

/// A web server in Perl.
const SERVER: &str = r#"
    my $server = IO::Socket::INET->new(LocalPort => 80, Listen => 16, ReuseAddr => 1) or die;
    while (my $client = $server->accept) {
        my $line = <$client>;
        while (<$client>) { last if /^\r?$/ }
        $line =~ s/\s+$//;
        print $client "HTTP/1.0 200 OK\r\n\r\n", $client->peerhost, " $line\n";
        close $client;
    }
"#;

/// Another machine: a network namespace at the other end of a cable. Its server answers with the client's address and
/// the first line of the request.
struct Outside(Child);

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ip(words: &str) {
    succeed(Command::new("ip").args(words.split(' ')));
}

impl Outside {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "perl", "-MIO::Socket::INET", "-e", SERVER]);
        let outside = Self(command.spawn().expect("unshare runs"));
        let pid = outside.0.id();
        let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).expect("it runs");
        until("it has a network of its own", || (network(&pid.to_string()) != network("self")).then_some(()));
        ip(&format!("link add {CABLE} type veth peer name eth0 netns {pid}"));
        ip(&format!("address add {HERE}/24 dev {CABLE}"));
        ip(&format!("link set {CABLE} up"));
        for words in [&format!("address add {THERE}/24 dev eth0"), "link set eth0 up", "link set lo up"] {
            succeed(outside.command("ip").args(words.split(' ')));
        }
        // It takes the machine for its router.
        succeed(outside.command("ip").args(["route", "add", "default", "via", HERE]));
        outside
    }

    /// A program that runs there.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg(program);
        command
    }

    /// Whether it can connect.
    fn reaches(&self, address: &str, port: u16) -> bool {
        let connect = format!("exec 3<>/dev/tcp/{address}/{port}");
        self.command("timeout").args(["2", "bash", "-c", &connect]).output().expect("it runs").status.success()
    }

    /// `kubectl` as it runs there, with nothing but a copy of the kubeconfig.
    fn kubectl(&self, kubeconfig: &Path, words: &[&str]) -> Output {
        let home = tempfile::tempdir().expect("a directory");
        let copy = home.path().join("kubeconfig");
        fs::copy(kubeconfig, &copy).expect("it is copied");
        fs::write(home.path().join("hosts"), format!("{HERE} machine.example.test\n")).expect("it is written");
        let mut command = self.command("unshare");
        let script = "mount --bind \"$HOME/hosts\" /etc/hosts && exec kubectl \"$@\"";
        command.args(["--mount", "sh", "-c", script, "kubectl"]).args(words);
        command.env("HOME", home.path()).env("KUBECONFIG", copy).output().expect("kubectl runs")
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["link", "delete", CABLE]).status());
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn pods_go_out_as_the_machine_and_nobody_comes_in_by_that_way() {
    let outside = Outside::new();
    let own = Own::up("out");
    let space = Namespace::within(own.cluster.clone(), "out");
    let host = space.actor();
    let answer = get(&own.cluster.gateway, &host, &format!("/fetch?http://{THERE}/")).expect("it answers");
    assert_eq!(answer.body, format!("200\n{HERE} GET / HTTP/1.1\n"));

    let pod = space.pods("actor")[0]["status"]["podIP"].as_str().expect("it has an address").to_owned();
    let inner = [(pod.as_str(), 8080), ("10.96.0.1", 443), ("169.254.77.1", 80), ("169.254.77.1", 5000)];
    thread::scope(|scope| {
        for (address, port) in inner {
            let outside = &outside;
            scope.spawn(move || {
                let here: SocketAddr = format!("{address}:{port}").parse().expect("an address");
                assert!(TcpStream::connect_timeout(&here, Duration::from_secs(5)).is_ok(), "{here} from here");
                assert!(!outside.reaches(address, port), "{here} from there");
            });
        }
    });
}

/// Answers that every name below `outside.test` is the other machine, and that there are no others.
fn resolver(socket: &UdpSocket) {
    let mut question = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut question) {
        let question = &question[..length];
        // After the head: labels, a zero, the type and the class.
        let name = question[12..].split(|byte| *byte == 0).next().unwrap_or_default();
        let end = 12 + name.len() + 5;
        let address = question[end - 3] == 1;
        let known = name.ends_with(b"\x07outside\x04test");
        let count = u8::from(known && address);
        let mut answer = question[..2].to_vec();
        answer.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, count, 0, 0, 0, 0]);
        answer.extend(&question[12..end]);
        if count == 1 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 2]);
        }
        drop(socket.send_to(&answer, client));
    }
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn pods_have_the_machines_resolvers_and_proxies() {
    let _outside = Outside::new();
    let socket = UdpSocket::bind("127.0.0.98:53").expect("a free port");
    thread::spawn(move || resolver(&socket));
    let resolv = scratch("resolv.conf");
    fs::write(&resolv, "search outside.test\nnameserver 127.0.0.98\n").expect("it is written");
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", script])
        .arg(&resolv)
        .arg(std::env::var("KNOLL").expect("scripts/e2e sets it"));
    command.env("HTTP_PROXY", format!("http://{THERE}:80")).env("https_proxy", format!("http://{THERE}:80"));
    let own = Own::up_as("resolved", command, &[]);
    for image in ["shell", "kubectl"] {
        own.load(image);
    }
    let space = Namespace::within(own.cluster.clone(), "resolved");
    let host = space.actor();
    // This one knows nothing of proxies.
    for name in ["far.outside.test", "far"] {
        let answer = get(&own.cluster.gateway, &host, &format!("/fetch?http://{name}/")).expect("it answers");
        assert_eq!(answer.body, format!("200\n{HERE} GET / HTTP/1.1\n"), "{name}");
    }
    let unknown = get(&own.cluster.gateway, &host, "/fetch?http://nowhere.test./").expect("it answers");
    assert_eq!(unknown.status, 500, "{}", unknown.body);

    let wget = |name: &str, env: serde_json::Value, url: &str| {
        let words = ["wget", "-q", "-O", "-", url];
        space.run_pod(name, json!({"image": "e2e/shell:1", "command": words, "env": env}))
    };
    let said = wget("proxied", json!([]), "http://nowhere.test/x");
    assert_eq!(said, format!("{HERE} GET http://nowhere.test/x HTTP/1.1\n"), "it asks the proxy");
    let said = wget("itself", json!([{"name": "HTTP_PROXY", "value": ""}]), "http://far/x");
    assert_eq!(said, format!("{HERE} GET /x HTTP/1.1\n"), "its own settings come first");
    let words = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"];
    let said = space.run_pod("inside", json!({"image": "localhost:5000/e2e/kubectl:1", "args": words}));
    assert_eq!(
        said.trim(),
        format!("system:serviceaccount:{}:default", space.name),
        "the API is no matter of the proxy's"
    );
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn another_machine_uses_it_by_its_address_and_by_its_name() {
    let outside = Outside::new();
    let (api, http) = (format!("{HERE}:6443"), format!("{HERE}:8080"));
    let options = ["--api-addr", &api, "--http-addr", &http, "--domain", "example.test"];
    let knoll = Command::new(std::env::var("KNOLL").expect("scripts/e2e sets it"));
    let own = Own::up_as("remote", knoll, &options);
    let kubectl = |words: &[&str]| {
        let output = outside.kubectl(&own.cluster.kubeconfig, words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {errors}", words.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(own.cluster.instance()["api"], format!("https://{api}"));
    kubectl(&["apply", "-f", &example("hello.yaml")]);
    kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "ksvc/hello"]);
    let url = ["get", "ksvc", "hello", "-o", "jsonpath={.status.url}"];
    assert_eq!(kubectl(&url), "http://hello.default.example.test");
    let greets = || {
        for port in [80, 8080] {
            let resolve = format!("hello.default.example.test:{port}:{HERE}");
            let url = format!("http://hello.default.example.test:{port}/");
            let mut curl = outside.command("curl");
            let answer = succeed(curl.args(["--silent", "--max-time", "30", "--resolve", &resolve, &url]));
            assert_eq!(answer, "Hello World!\n");
        }
    };
    greets();
    assert!(!outside.reaches(HERE, 5000), "the registry is for this machine");
    assert!(TcpStream::connect("127.0.0.1:6443").is_err(), "it listens where it was told, and nowhere else");

    own.signal("TERM");
    own.up_again_with(&[&options[..], &["--api-name", "machine.example.test"]].concat());
    let kubeconfig = fs::read_to_string(&own.cluster.kubeconfig).expect("it is there");
    assert!(kubeconfig.contains("https://machine.example.test:6443"), "{kubeconfig}");
    assert_eq!(kubectl(&url), "http://hello.default.example.test");

    // At every address, beside the sockets that pods have.
    own.signal("TERM");
    let everywhere = ["--api-addr", "0.0.0.0:6443", "--http-addr", "0.0.0.0:8080", "--registry-addr", "0.0.0.0:5000"];
    own.up_again_with(&[&everywhere[..], &["--domain", "example.test"]].concat());
    greets();
    let server = format!("--server=https://{api}");
    assert!(outside.reaches(HERE, 5000), "the registry is for everybody now");
    assert!(!outside.reaches("169.254.77.1", 6443), "pods' sockets are for pods");
    own.load("kubectl");
    let words =
        ["run", "inside", "--image=localhost:5000/e2e/kubectl:1", "--restart=Never", "--", "get", "--raw=/readyz"];
    kubectl(&[&[server.as_str()], &words[..]].concat());
    kubectl(&[&server, "wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", "pod/inside"]);
}
