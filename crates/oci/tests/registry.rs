//! The embedded registry: who may do what, how much of it, and what nobody gets by asking.

use std::{net::SocketAddr, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use knoll_oci::{Action, Authorize, Config, Digest, ImageStore, Limits, Locality, Registry, RegistryPolicy, Verdict};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Knows one token, whose owner may push below `team/`.
struct Authority;

impl Authorize for Authority {
    fn knows(&self, token: &str) -> bool {
        token == "jwt"
    }

    fn authorize(&self, _: &str, action: Action, repository: &str) -> Verdict {
        match (action, repository.starts_with("team/")) {
            (Action::Push, true) => Verdict::Allowed,
            _ => Verdict::Forbidden("only team/ may be pushed to".into()),
        }
    }
}

fn registry(root: &Path, limits: Limits) -> (Registry, ImageStore) {
    let hosts = vec!["localhost:5000".to_owned(), "registry.knoll.local:5000".to_owned()];
    let store = ImageStore::open(root, Config { registry_hosts: hosts, limits, ..Config::default() }).expect("opens");
    let policy = RegistryPolicy {
        names: vec!["box.example".into()],
        machine: ("knoll".into(), "password".into()),
        authority: Some(Arc::new(Authority)),
    };
    (Registry::new(store.clone(), policy), store)
}

struct Ask<'a> {
    registry: &'a Registry,
    side: Locality,
    host: &'a str,
    header: Option<(&'a str, String)>,
}

type Answer = (StatusCode, http::HeaderMap, Bytes);

impl Ask<'_> {
    async fn send(&self, method: &str, target: &str, body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(target).header("host", self.host);
        if let Some((name, value)) = &self.header {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let (parts, body) = self.registry.handle(request, self.side).await.into_parts();
        (parts.status, parts.headers, body.collect().await.expect("reads").to_bytes())
    }

    /// Pushes an image of one layer; the first refusal ends it.
    async fn push(&self, repository: &str, layer: &[u8]) -> StatusCode {
        let config = json!({"rootfs": {"diff_ids": [Digest::of(layer).to_string()]}}).to_string();
        for blob in [layer, config.as_bytes()] {
            let target = format!("/v2/{repository}/blobs/uploads/?digest={}", Digest::of(blob));
            let (status, ..) = self.send("POST", &target, blob.to_vec()).await;
            if status != StatusCode::CREATED {
                return status;
            }
        }
        let descriptor = |bytes: &[u8]| json!({"digest": Digest::of(bytes).to_string(), "size": bytes.len()});
        let manifest = json!({"config": descriptor(config.as_bytes()), "layers": [descriptor(layer)]}).to_string();
        self.send("PUT", &format!("/v2/{repository}/manifests/v1"), manifest).await.0
    }
}

fn as_nobody(registry: &Registry) -> Ask<'_> {
    Ask { registry, side: Locality::Local, host: "localhost:5000", header: None }
}

fn as_user<'a>(registry: &'a Registry, user: &str, password: &str) -> Ask<'a> {
    let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    Ask { header: Some(("authorization", basic)), ..as_nobody(registry) }
}

fn as_bearer<'a>(registry: &'a Registry, token: &str) -> Ask<'a> {
    Ask { header: Some(("authorization", format!("Bearer {token}"))), ..as_nobody(registry) }
}

#[tokio::test]
async fn only_the_machine_and_whom_the_authority_allows_change_anything() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (registry, _) = registry(scratch.path(), Limits::default());
    let nobody = as_nobody(&registry);
    assert_eq!(nobody.push("team/app", b"layer").await, StatusCode::UNAUTHORIZED);
    assert_eq!(as_user(&registry, "knoll", "wrong").push("team/app", b"layer").await, StatusCode::UNAUTHORIZED);
    assert_eq!(as_bearer(&registry, "anonymous").push("team/app", b"layer").await, StatusCode::UNAUTHORIZED);
    assert_eq!(as_bearer(&registry, "jwt").push("other/app", b"layer").await, StatusCode::FORBIDDEN);
    assert_eq!(as_bearer(&registry, "jwt").push("team/app", b"layer").await, StatusCode::CREATED);
    assert_eq!(as_user(&registry, "account", "jwt").push("team/app", b"layer").await, StatusCode::CREATED);
    assert_eq!(as_user(&registry, "knoll", "password").push("app", b"layer").await, StatusCode::CREATED);
    for ask in [nobody, as_bearer(&registry, "jwt")] {
        let (status, ..) = ask.send("DELETE", "/v2/app/manifests/v1", "").await;
        assert!(matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), "{status}");
    }
    let nobody = as_nobody(&registry);
    assert_eq!(nobody.send("GET", "/v2/app/manifests/v1", "").await.0, StatusCode::OK, "reading is open");
    assert_eq!(nobody.send("POST", "/knoll/images", "tar").await.0, StatusCode::NOT_FOUND);
    assert_eq!(nobody.send("POST", "/images", "tar").await.0, StatusCode::NOT_FOUND);
    let (status, ..) = as_user(&registry, "knoll", "password").send("DELETE", "/v2/app/manifests/v1", "").await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn clients_are_told_how_to_log_in_and_get_a_token_for_it() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (registry, _) = registry(scratch.path(), Limits::default());
    let (status, headers, _) = as_nobody(&registry).send("GET", "/v2/", "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "docker and skopeo learn it from here only");
    assert_eq!(headers["www-authenticate"], "Bearer realm=\"http://localhost:5000/token\",service=\"knoll\"");
    let token = async |ask: Ask<'_>| {
        let (status, _, body) = ask.send("GET", "/token?service=knoll&scope=repository:a:pull", "").await;
        let value: Value = serde_json::from_slice(&body).expect("is JSON");
        (status, value["token"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(token(as_user(&registry, "knoll", "wrong")).await.0, StatusCode::UNAUTHORIZED);
    for (ask, may_push) in [(as_nobody(&registry), false), (as_user(&registry, "knoll", "password"), true)] {
        let (status, token) = token(ask).await;
        assert_eq!(status, StatusCode::OK);
        let with_it = as_bearer(&registry, &token);
        assert_eq!(with_it.send("GET", "/v2/", "").await.0, StatusCode::OK);
        let (status, ..) = with_it.send("POST", "/v2/app/blobs/uploads/", "").await;
        assert_eq!(status == StatusCode::ACCEPTED, may_push, "{status}");
    }
}

#[tokio::test]
async fn web_pages_other_names_and_other_machines_get_nothing() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (registry, _) = registry(scratch.path(), Limits::default());
    assert_eq!(as_user(&registry, "knoll", "password").push("app", b"layer").await, StatusCode::CREATED);
    let read = "/v2/app/manifests/v1";
    for host in
        ["localhost:5000", "localhost:1234", "127.0.0.1:5000", "[::1]:5000", "REGISTRY.knoll.local:5000", "box.example"]
    {
        assert_eq!(Ask { host, ..as_nobody(&registry) }.send("GET", read, "").await.0, StatusCode::OK, "{host}");
    }
    for host in ["evil.example", "evil.example:5000", "localhost.evil.example", "", "localhost@evil.example"] {
        let (status, ..) = Ask { host, ..as_nobody(&registry) }.send("GET", read, "").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{host}");
    }
    for header in ["origin", "sec-fetch-site"] {
        let page = Ask { header: Some((header, "http://localhost:5000".into())), ..as_nobody(&registry) };
        assert_eq!(page.send("GET", read, "").await.0, StatusCode::FORBIDDEN, "{header}");
    }
    let outside = Ask { side: Locality::Remote, host: "192.0.2.1:5000", ..as_nobody(&registry) };
    assert_eq!(outside.send("GET", read, "").await.0, StatusCode::UNAUTHORIZED);
    let known = Ask { side: Locality::Remote, ..as_user(&registry, "knoll", "password") };
    assert_eq!(known.send("GET", read, "").await.0, StatusCode::OK);
}

/// A connection from an address of the loopback, `127.0.0.<last>`.
async fn from_loopback(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).expect("all of them are this machine's");
    socket.connect(to).await.expect("connects")
}

/// What is answered on a connection to the question whether this is a registry; nothing when it was closed.
async fn greeted(connection: &mut TcpStream) -> String {
    let mut answer = String::new();
    if connection.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost:5000\r\nconnection: close\r\n\r\n").await.is_ok() {
        // Reset, when it was closed while this was on its way.
        drop(connection.read_to_string(&mut answer).await);
    }
    answer
}

#[tokio::test]
async fn all_addresses_of_the_loopback_are_one_client_and_get_their_connections_back() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (registry, _) = registry(scratch.path(), Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("bound");
    let asking = async {
        let mut held = Vec::new();
        for at in 0..64 {
            held.push(from_loopback(2 + at, address).await);
        }
        assert_eq!(greeted(&mut from_loopback(200, address).await).await, "", "64 are all that one client has");
        let mut one = held.pop().expect("there are some");
        assert!(greeted(&mut one).await.starts_with("HTTP/1.1 401 "));
        // Its place is free once the server has seen its end.
        while !greeted(&mut from_loopback(201, address).await).await.starts_with("HTTP/1.1 401 ") {}
        drop(held);
    };
    tokio::select! {
        served = registry.serve(&listener, false, std::future::pending()) => panic!("it ended: {served:?}"),
        () = asking => {}
    }
}

#[tokio::test]
async fn uploads_are_bounded_and_belong_to_their_repository() {
    let scratch = tempfile::tempdir().expect("a directory");
    let limits = Limits { blob_bytes: 1000, manifest_bytes: 1000, layers: 2, ..Limits::default() };
    let (registry, _) = registry(scratch.path(), limits);
    let ask = as_user(&registry, "knoll", "password");
    let code = |(status, _, body): Answer| {
        let value: Value = serde_json::from_slice(&body).expect("is JSON");
        (status, value["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
    };
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID".to_owned());
    let long = vec![0; 1001];
    let whole = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(&long));
    assert_eq!(code(ask.send("POST", &whole, long.clone()).await), too_large);
    let begun = ask.send("POST", "/v2/a/blobs/uploads/", "").await;
    let location = begun.1["location"].to_str().expect("text").to_owned();
    let of_another = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(code(ask.send("PATCH", &of_another, "x").await).1, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(ask.send("PATCH", &location, vec![0; 600]).await.0, StatusCode::ACCEPTED);
    assert_eq!(code(ask.send("PATCH", &location, vec![0; 600]).await), too_large);
    assert_eq!(code(ask.send("PUT", "/v2/a/manifests/v1", " ".repeat(1001)).await), too_large);
    let blob = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"b"));
    assert_eq!(ask.send("POST", &blob, "b").await.0, StatusCode::CREATED);
    let tall = json!({"layers": vec![json!({"digest": Digest::of(b"b").to_string()}); 3]}).to_string();
    let (status, message) = code(ask.send("PUT", "/v2/a/manifests/v1", tall).await);
    assert_eq!((status, message.as_str()), (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"));
    for namespace in ["a", "b", "c", "d"] {
        let begin = format!("/v2/{namespace}/blobs/uploads/");
        for _ in 0..32 {
            assert_eq!(ask.send("POST", &begin, "").await.0, StatusCode::ACCEPTED);
        }
        assert_eq!(code(ask.send("POST", &begin, "").await).1, "TOOMANYREQUESTS");
    }
    assert_eq!(code(ask.send("POST", "/v2/e/blobs/uploads/", "").await).1, "TOOMANYREQUESTS", "128 are all");
    let left = std::fs::read_dir(scratch.path().join("incoming")).expect("reads").count();
    assert_eq!(left, 128, "what was refused leaves nothing");
}

#[tokio::test]
async fn a_blob_that_was_pulled_for_somebody_is_nobody_elses_by_its_digest() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (registry, _) = registry(scratch.path(), Limits::default());
    // As a pull with credentials leaves it: here, and open to nobody in particular.
    let (secret, manifest) = (b"secret layer", b"{\"layers\":[]}");
    for blob in [&secret[..], manifest] {
        std::fs::write(scratch.path().join("blobs/sha256").join(Digest::of(blob).hex()), blob).expect("writes");
    }
    let (secret, manifest) = (Digest::of(secret), Digest::of(manifest));
    let ask = as_user(&registry, "knoll", "password");
    assert_eq!(ask.send("GET", &format!("/v2/a/blobs/{secret}"), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask.send("GET", &format!("/v2/a/manifests/{manifest}"), "").await.0, StatusCode::NOT_FOUND);
    let mount = format!("/v2/a/blobs/uploads/?mount={secret}&from=b");
    assert_eq!(ask.send("POST", &mount, "").await.0, StatusCode::ACCEPTED, "it has to be uploaded");
    let naming = json!({"layers": [{"digest": secret.to_string()}]}).to_string();
    assert_eq!(ask.send("PUT", "/v2/a/manifests/v1", naming).await.0, StatusCode::BAD_REQUEST);
    let naming = json!({"manifests": [{"digest": manifest.to_string()}]}).to_string();
    assert_eq!(ask.send("PUT", "/v2/a/manifests/v1", naming).await.0, StatusCode::BAD_REQUEST);
    // Naming it before it is here opens nothing, either.
    let later = b"{\"layers\":[{\"digest\":\"later\"}]}";
    let naming = json!({"manifests": [{"digest": Digest::of(later).to_string()}]}).to_string();
    assert_eq!(ask.send("PUT", "/v2/a/manifests/early", naming).await.0, StatusCode::CREATED);
    std::fs::write(scratch.path().join("blobs/sha256").join(Digest::of(later).hex()), later).expect("writes");
    let target = format!("/v2/a/manifests/{}", Digest::of(later));
    assert_eq!(ask.send("GET", &target, "").await.0, StatusCode::NOT_FOUND);
    // Having the text of a manifest is not having what it names.
    let text = format!("/v2/a/blobs/uploads/?digest={manifest}");
    assert_eq!(ask.send("POST", &text, &b"{\"layers\":[]}"[..]).await.0, StatusCode::CREATED);
    assert_eq!(ask.send("GET", &format!("/v2/a/manifests/{manifest}"), "").await.0, StatusCode::NOT_FOUND);
}

async fn command(registry: &Registry, method: &str, target: &str, body: Vec<u8>) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(target).body(Full::new(Bytes::from(body))).expect("a request");
    let response: Response<_> = registry.command(request).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("reads").to_bytes();
    (parts.status, serde_json::from_slice(&body).expect("is JSON"))
}

#[tokio::test]
async fn the_command_line_loads_by_a_socket_of_its_own() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (registry, store) = registry(scratch.path(), Limits::default());
    let mut tar = tar::Builder::new(Vec::new());
    let manifest = json!([{"Config": "c.json", "RepoTags": ["app:v1"], "Layers": []}]).to_string();
    for (name, content) in [("c.json", "{\"rootfs\":{\"diff_ids\":[]}}"), ("manifest.json", manifest.as_str())] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes()).expect("appends");
    }
    let tar = tar.into_inner().expect("finishes");
    let (status, value) = command(&registry, "POST", "/images?tag=localhost%3A5000/team/app:v2", tar).await;
    assert_eq!((status, value), (StatusCode::CREATED, json!({"images": ["localhost:5000/team/app:v2"]})));
    let (_, value) = command(&registry, "GET", "/images", Vec::new()).await;
    let digest = &store.references()[0].1;
    assert_eq!(value, json!({"images": [format!("localhost:5000/team/app:v2 {digest}")]}));
    let (status, value) = command(&registry, "POST", "/images", b"no tar".to_vec()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let said = value["errors"][0]["message"].as_str().expect("a message");
    assert!(said.contains("the archive") && !said.contains("incoming"), "{said}");
    assert_eq!(std::fs::read_dir(scratch.path().join("incoming")).expect("reads").count(), 0);
    let (status, ..) = as_user(&registry, "knoll", "password").send("GET", "/v2/team/app/manifests/v2", "").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn what_it_did_and_refused_is_counted() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (registry, _store) = registry(scratch.path(), Limits::default());
    let (layer, nobody, machine) = (b"layer", as_nobody(&registry), as_user(&registry, "knoll", "password"));
    assert_eq!(nobody.push("a", layer).await, StatusCode::UNAUTHORIZED);
    assert_eq!(as_bearer(&registry, "jwt").push("a", layer).await, StatusCode::FORBIDDEN);
    // The root only tells where to log in.
    assert_eq!(nobody.send("GET", "/v2/", "").await.0, StatusCode::UNAUTHORIZED);
    let counts = registry.counts();
    assert_eq!((counts.denied, counts.pushes, counts.received_bytes), (2, 0, 0), "{counts:?}");
    assert_eq!(machine.push("a", layer).await, StatusCode::CREATED);
    assert_eq!(nobody.send("GET", "/v2/a/manifests/v1", "").await.0, StatusCode::OK);
    assert_eq!(nobody.send("HEAD", "/v2/a/manifests/v1", "").await.0, StatusCode::OK);
    let (status, _, bytes) = nobody.send("GET", &format!("/v2/a/blobs/{}", Digest::of(layer)), "").await;
    assert_eq!((status, bytes.as_ref()), (StatusCode::OK, layer.as_slice()));
    assert_eq!(machine.send("DELETE", "/v2/a/manifests/v1", "").await.0, StatusCode::ACCEPTED);
    let counts = registry.counts();
    assert_eq!((counts.pushes, counts.pulls, counts.deletions, counts.failed), (1, 1, 1, 0), "{counts:?}");
    assert_eq!((counts.denied, counts.sent_bytes), (2, layer.len() as u64), "{counts:?}");
    assert!(counts.received_bytes > layer.len() as u64, "the configuration, too: {counts:?}");
}
