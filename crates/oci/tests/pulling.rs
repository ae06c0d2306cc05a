//! Pulling from registries that ask who one is: whose credentials open what, and that nobody else profits. Needs
//! root, as unpacking does.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use knoll_faults::chain;
use knoll_oci::{Config, Digest, Image, ImageStore, Keychain, Limits, PullError, PullPolicy};
use serde_json::json;

/// A registry of a test: what it has, whom it lets in, and what it was asked.
#[derive(Default)]
struct Content {
    /// By path below `/v2/`.
    files: BTreeMap<String, Vec<u8>>,
    /// Digests it tells of files that it does not have, by path.
    claims: BTreeMap<String, String>,
    /// Accepted `user:password`; nobody is asked when there is none.
    logins: Vec<String>,
    /// Whether it gives out tokens instead of taking passwords.
    tokens: bool,
    asked: Vec<String>,
}

#[derive(Clone)]
struct FakeRegistry {
    content: Arc<Mutex<Content>>,
    host: String,
}

impl FakeRegistry {
    async fn start(logins: &[&str], tokens: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let host = listener.local_addr().expect("bound").to_string();
        let logins = logins.iter().map(ToString::to_string).collect();
        let content = Arc::new(Mutex::new(Content { logins, tokens, ..Content::default() }));
        let registry = Self { content, host };
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = serving.clone();
                let service = hyper::service::service_fn(move |request| {
                    let answer = registry.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        registry
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let mut content = self.content.lock().expect("nobody panics");
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or("").to_owned());
        let shown = request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        content.asked.push(format!("{} {path}", request.method()));
        let user = shown.strip_prefix("Basic ").map(|text| STANDARD.decode(text).expect("is base64"));
        let user = user.map(|bytes| String::from_utf8(bytes).expect("is text"));
        let known = |user: &String| content.logins.contains(user);
        if path == "/token" {
            let body = json!({"token": format!("for-{}", user.as_deref().unwrap_or("nobody"))}).to_string();
            assert!(query.contains("service=fake") && query.contains("scope=repository%3A"), "{query}");
            let status = if user.as_ref().is_none_or(known) { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            return Response::builder().status(status).body(Full::new(body.into())).expect("valid");
        }
        let bearer = shown.strip_prefix("Bearer for-").map(str::to_owned);
        let let_in = content.logins.is_empty()
            || if content.tokens { bearer.as_ref() } else { user.as_ref() }.is_some_and(known);
        if !let_in {
            let challenge = match content.tokens {
                true => format!("Bearer realm=\"http://{}/token\",service=\"fake\"", self.host),
                false => "Basic realm=\"fake\"".to_owned(),
            };
            let response = Response::builder().status(StatusCode::UNAUTHORIZED).header("www-authenticate", challenge);
            return response.body(Full::default()).expect("valid");
        }
        match content.files.get(path.trim_start_matches("/v2/")) {
            Some(bytes) => {
                let body = if request.method() == Method::HEAD { Bytes::new() } else { bytes.clone().into() };
                let claim = content.claims.get(path.trim_start_matches("/v2/")).cloned();
                let digest = claim.unwrap_or_else(|| Digest::of(bytes).to_string());
                Response::builder().header("docker-content-digest", digest).body(Full::new(body)).expect("valid")
            }
            None => Response::builder().status(StatusCode::NOT_FOUND).body(Full::default()).expect("valid"),
        }
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        self.content.lock().expect("nobody panics").files.insert(path.into(), bytes.to_vec());
        self.content.lock().expect("nobody panics").claims.remove(path);
    }

    fn file(&self, path: &str) -> Vec<u8> {
        self.content.lock().expect("nobody panics").files[path].clone()
    }

    /// Answers at a path with nothing, under this digest.
    fn claim(&self, path: &str, digest: &Digest) {
        self.put(path, b"");
        self.content.lock().expect("nobody panics").claims.insert(path.into(), digest.to_string());
    }

    /// Puts an image of one layer there and returns its reference.
    fn publish(&self, name: &str, layer: &[u8]) -> String {
        let config = json!({"rootfs": {"type": "layers", "diff_ids": [Digest::of(layer).to_string()]}}).to_string();
        self.publish_raw(name, layer, config.as_bytes(), &[layer, config.as_bytes()])
    }

    /// An image whose manifest names a layer and a configuration, with only some blobs behind it.
    fn publish_raw(&self, name: &str, layer: &[u8], config: &[u8], blobs: &[&[u8]]) -> String {
        let descriptor =
            |bytes: &[u8]| json!({"mediaType": "x", "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
        let manifest = json!({"schemaVersion": 2, "config": descriptor(config), "layers": [descriptor(layer)]});
        let manifest = manifest.to_string().into_bytes();
        for blob in blobs {
            self.put(&format!("{name}/blobs/{}", Digest::of(blob)), blob);
        }
        self.put(&format!("{name}/manifests/v1"), &manifest);
        self.put(&format!("{name}/manifests/{}", Digest::of(&manifest)), &manifest);
        format!("{}/{name}:v1", self.host)
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.content.lock().expect("nobody panics").asked)
    }

    fn keychain(&self, logins: &[&str]) -> Keychain {
        let mut keychain = Keychain::default();
        for login in logins {
            let config = json!({"auths": {&self.host: {"auth": STANDARD.encode(login)}}});
            keychain.add_docker_config(config.to_string().as_bytes()).expect("parses");
        }
        keychain
    }
}

fn layer(content: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, "file", content.as_bytes()).expect("appends");
    tar.into_inner().expect("finishes")
}

fn open(root: &Path) -> ImageStore {
    let config = Config { registry_hosts: vec!["localhost:1".into()], ..Config::default() };
    ImageStore::open(root, config).expect("opens")
}

async fn pull(store: &ImageStore, name: &str, policy: PullPolicy, keychain: &Keychain) -> Result<Image, PullError> {
    store.pull(name, policy, keychain, &|_| {}).await
}

fn is_unauthorized(outcome: &Result<Image, PullError>) -> bool {
    matches!(outcome, Err(PullError::Unauthorized { .. }))
}

#[tokio::test]
async fn an_image_that_another_pulled_needs_credentials_of_ones_own() {
    for tokens in [false, true] {
        let scratch = tempfile::tempdir().expect("a directory");
        let registry = FakeRegistry::start(&["a:1", "b:2"], tokens).await;
        let name = registry.publish("team/app", &layer("secret"));
        let store = open(scratch.path());
        let (ours, theirs, wrong, none) = (
            registry.keychain(&["a:1"]),
            registry.keychain(&["b:2"]),
            registry.keychain(&["c:3"]),
            Keychain::default(),
        );
        let image = pull(&store, &name, PullPolicy::IfNotPresent, &ours).await.expect("may");
        assert!(!image.is_for_everybody);
        let by_digest = name.replace(":v1", &format!("@{}", image.digest));
        for name in [&name, &by_digest] {
            for policy in [PullPolicy::IfNotPresent, PullPolicy::Always] {
                assert!(is_unauthorized(&pull(&store, name, policy, &none).await), "{policy:?}");
                assert!(is_unauthorized(&pull(&store, name, policy, &wrong).await), "{policy:?}");
            }
            let never = pull(&store, name, PullPolicy::Never, &none).await;
            assert!(matches!(never, Err(PullError::NotAllowed(_))), "{never:?}");
        }
        registry.asked();
        pull(&store, &name, PullPolicy::IfNotPresent, &ours).await.expect("may still");
        pull(&store, &by_digest, PullPolicy::Always, &ours).await.expect("may still");
        assert_eq!(registry.asked(), Vec::<String>::new(), "credentials that were accepted cost nothing again");
        pull(&store, &name, PullPolicy::IfNotPresent, &theirs).await.expect("the registry lets them");
        assert!(registry.asked().iter().all(|line| !line.contains("/blobs/")), "nothing is downloaded for it");
        drop(store);
        let store = open(scratch.path());
        pull(&store, &name, PullPolicy::Never, &theirs).await.expect("that is remembered");
        assert!(is_unauthorized(&pull(&store, &name, PullPolicy::IfNotPresent, &none).await));
        store.find(&name).await.expect("what runs from it is found all the same");
    }
}

#[tokio::test]
async fn the_same_image_loaded_under_another_name_opens_no_private_one() {
    let scratch = tempfile::tempdir().expect("a directory");
    let registry = FakeRegistry::start(&["a:1"], false).await;
    let name = registry.publish("app", &layer("secret"));
    let store = open(scratch.path());
    let image = pull(&store, &name, PullPolicy::IfNotPresent, &registry.keychain(&["a:1"])).await.expect("may");
    for other in ["localhost:1/app", "docker.io/library/app", &name.replace(":v1", "-other")] {
        let by_digest = format!("{other}@{}", image.digest);
        let outcome = pull(&store, &by_digest, PullPolicy::Never, &Keychain::default()).await;
        assert!(matches!(outcome, Err(PullError::NotAllowed(_))), "{other}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_open_image_and_what_the_machine_may_pull_are_for_everybody() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    let public = FakeRegistry::start(&[], false).await;
    let name = public.publish("app", &layer("open"));
    let with_useless_login = public.keychain(&["a:1"]);
    let image = pull(&store, &name, PullPolicy::IfNotPresent, &with_useless_login).await.expect("nobody is asked");
    assert!(image.is_for_everybody);
    public.asked();
    pull(&store, &name, PullPolicy::IfNotPresent, &Keychain::default()).await.expect("open");
    assert_eq!(public.asked(), Vec::<String>::new());

    let private = FakeRegistry::start(&["m:1"], false).await;
    let name = private.publish("app", &layer("the machine's"));
    let mut machines = Keychain::default();
    machines.add_machine(&private.keychain(&["m:1"]));
    assert!(pull(&store, &name, PullPolicy::IfNotPresent, &machines).await.expect("may").is_for_everybody);
    pull(&store, &name, PullPolicy::Never, &Keychain::default()).await.expect("is for the machine's pods");
}

#[tokio::test]
async fn a_refusal_is_forgotten_as_soon_as_there_are_credentials() {
    for tokens in [false, true] {
        let scratch = tempfile::tempdir().expect("a directory");
        let registry = FakeRegistry::start(&["a:1"], tokens).await;
        let name = registry.publish("app", &layer("secret"));
        let store = open(scratch.path());
        for _ in 0..2 {
            let refused = store.resolve_digest(&name, &Keychain::default()).await.expect_err("who asks?");
            assert!(refused.to_string().contains("401 Unauthorized"), "{refused}");
            let wrong = store.resolve_digest(&name, &registry.keychain(&["c:3"])).await;
            wrong.expect_err("a wrong password");
            store.resolve_digest(&name, &registry.keychain(&["a:1"])).await.expect("the right one");
        }
        let several = registry.keychain(&["old:0", "a:1"]);
        pull(&store, &name, PullPolicy::IfNotPresent, &several).await.expect("the second of two secrets is right");
    }
}

#[tokio::test]
async fn a_registry_gets_nothing_by_naming_what_another_has() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    let private = FakeRegistry::start(&["a:1"], false).await;
    let secret = layer("secret");
    let name = private.publish("app", &secret);
    pull(&store, &name, PullPolicy::IfNotPresent, &private.keychain(&["a:1"])).await.expect("may");

    let evil = FakeRegistry::start(&[], false).await;
    let config = json!({"rootfs": {"type": "layers", "diff_ids": [Digest::of(&secret).to_string()]}}).to_string();
    let thief = evil.publish_raw("thief", &secret, config.as_bytes(), &[config.as_bytes()]);
    let outcome = pull(&store, &thief, PullPolicy::IfNotPresent, &Keychain::default()).await;
    assert!(matches!(outcome, Err(PullError::NotFound(_))), "{outcome:?}");
    let image = pull(&store, &name, PullPolicy::IfNotPresent, &private.keychain(&["a:1"])).await.expect("still whole");
    assert_eq!(std::fs::read(image.layers[0].join("file")).expect("is there"), b"secret");
}

#[tokio::test]
async fn a_registry_that_says_it_has_an_image_must_hand_it_over() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    let private = FakeRegistry::start(&["a:1"], false).await;
    let secret = layer("secret");
    let name = private.publish("app", &secret);
    let image = pull(&store, &name, PullPolicy::IfNotPresent, &private.keychain(&["a:1"])).await.expect("may");
    let manifest = private.file(&format!("app/manifests/{}", image.digest));

    let evil = FakeRegistry::start(&[], false).await;
    let nobody = Keychain::default();
    let thief = format!("{}/thief@{}", evil.host, image.digest);
    // It answers that it has the image, and even tells the manifest, but none of its blobs.
    evil.claim(&format!("thief/manifests/{}", image.digest), &image.digest);
    let refused = pull(&store, &thief, PullPolicy::IfNotPresent, &nobody).await;
    assert!(refused.is_err(), "a claim is no proof: {refused:?}");
    evil.put(&format!("thief/manifests/{}", image.digest), &manifest);
    let refused = pull(&store, &thief, PullPolicy::IfNotPresent, &nobody).await;
    assert!(matches!(refused, Err(PullError::NotFound(_))), "{refused:?}");
    // Neither by way of an index of its own.
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "x", "digest": image.digest.to_string(),
        "size": manifest.len()}]});
    evil.put("thief/manifests/index", index.to_string().as_bytes());
    let refused = pull(&store, &format!("{}/thief:index", evil.host), PullPolicy::IfNotPresent, &nobody).await;
    assert!(refused.is_err(), "{refused:?}");
    for policy in [PullPolicy::Never, PullPolicy::IfNotPresent, PullPolicy::Always] {
        let refused = pull(&store, &thief, policy, &nobody).await;
        assert!(refused.is_err(), "{policy:?}: {refused:?}");
    }

    let mirror = FakeRegistry::start(&[], false).await;
    let same = mirror.publish("mirror", &secret).replace(":v1", &format!("@{}", image.digest));
    pull(&store, &same, PullPolicy::IfNotPresent, &nobody).await.expect("it has what it says");
    assert!(mirror.asked().iter().any(|line| line.contains("/blobs/")), "it handed it over");
}

#[tokio::test]
async fn what_a_registry_sends_is_bounded() {
    let scratch = tempfile::tempdir().expect("a directory");
    let registry = FakeRegistry::start(&[], false).await;
    let limits = Limits { manifest_bytes: 4096, config_bytes: 1000, ..Limits::default() };
    let config = Config { registry_hosts: vec!["localhost:1".into()], limits, ..Config::default() };
    let store = ImageStore::open(scratch.path(), config).expect("opens");
    let nobody = Keychain::default();
    let refused =
        async |name: &str| chain(&pull(&store, name, PullPolicy::Always, &nobody).await.expect_err("too much"));

    registry.put("long/manifests/v1", &vec![b' '; 5000]);
    let said = refused(&format!("{}/long:v1", registry.host)).await;
    assert!(said.contains("/long:v1") && said.contains("bytes of a manifest: more than the 4096 allowed"), "{said}");

    let small = layer("x");
    let wide = format!("{}{}", " ".repeat(2000), json!({"rootfs": {"diff_ids": [Digest::of(&small).to_string()]}}));
    let said = refused(&registry.publish_raw("wide", &small, wide.as_bytes(), &[&small, wide.as_bytes()])).await;
    assert!(said.contains("bytes of an image's configuration: more than the 1000 allowed"), "{said}");

    // A blob that goes on after what was announced.
    let longer = layer("y");
    let name = registry.publish("more", &longer);
    registry.put(&format!("more/blobs/{}", Digest::of(&longer)), &longer.repeat(2));
    let said = refused(&name).await;
    assert!(said.contains("bytes of a blob: more than the"), "{said}");

    let huge = json!({"layers": [{"digest": "sha256:", "size": u64::MAX}, {"digest": "sha256:", "size": u64::MAX}]});
    registry.put("sum/manifests/v1", huge.to_string().as_bytes());
    refused(&format!("{}/sum:v1", registry.host)).await;
}
