use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use knoll_apiserver::{
    UserInfo,
    auth::{LocalAuthority, Pki, TokenKey},
};
use knoll_store::{Durability, Expect, Options, Store};
use serde_json::json;
use tokio::{runtime::Runtime, sync::Semaphore};
use tracing::Level;

use super::{answer::Caller, *};
use crate::{log_file::Lines, logging};

/// An endpoint on a socket of its own, and what it looks at.
struct Place {
    admin: Arc<Admin>,
    directory: tempfile::TempDir,
    /// One thread, which a test can stop.
    rest: Runtime,
    _subscriber: Box<dyn std::any::Any>,
}

impl Place {
    fn new() -> Self {
        let (subscriber, level) = logging::subscriber(Level::INFO, Lines::StandardError);
        let rest =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let admin = Admin::new(level, rest.handle().clone());
        let directory = tempfile::tempdir().expect("a directory");
        admin.start(&directory.path().join("socket"), None).expect("it starts");
        Self { admin, directory, rest, _subscriber: Box::new(subscriber) }
    }

    /// Asks as root: status and body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let stream = UnixStream::connect(self.directory.path().join("socket")).expect("it listens");
        exchange(stream, &request(method, path, "", body))
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "")
    }

    /// Asks until it is well: a busy machine may take longer for one sign of life than a program should.
    fn get_well(&self, path: &str) {
        until_well(path, || self.get(path));
    }
}

/// Asks until the answer is that all is well.
fn until_well(what: &str, ask: impl Fn() -> (u16, String)) {
    let begun = Instant::now();
    loop {
        match ask() {
            (200, said) if said == "ok" => return,
            (status, said) => assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {status} {said}"),
        }
    }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn exchange(mut stream: UnixStream, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"), body.to_owned())
}

#[test]
fn it_is_alive_unless_the_rest_of_the_program_stands_still() {
    let place = Place::new();
    place.get_well("/livez");
    let (go_on, wait) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    place.rest.spawn(async move {
        begun.send(()).ok();
        wait.recv().ok();
    });
    begins.recv().expect("the only thread is taken");
    let stuck = place.get("/livez");
    assert_eq!(stuck, (500, format!("nothing runs since {} s\n", PATIENCE.as_secs())));
    // The endpoint answers all the same.
    assert_eq!(place.get("/log-level").0, 200);
    drop(go_on);
    place.get_well("/healthz");
}

#[test]
fn it_is_ready_once_every_part_is_and_says_which_is_not() {
    let place = Place::new();
    let (status, said) = place.get("/readyz");
    assert!(status == 503 && said.contains("[-]start"), "{said}");
    let well = Arc::new(AtomicBool::new(false));
    let mut sources = Sources::default();
    sources.check("store", || Ok(()));
    let seen = well.clone();
    sources.check("node", move || if seen.load(Ordering::SeqCst) { Ok(()) } else { Err("it is away".into()) });
    place.admin.attend(sources);
    let (status, said) = place.get("/readyz");
    assert_eq!((status, said.as_str()), (503, "[+]store ok\n[-]node failed: it is away\nreadyz check failed\n"));
    well.store(true, Ordering::SeqCst);
    assert_eq!(place.get("/readyz"), (200, "ok".into()));
    assert_eq!(place.get("/readyz?verbose"), (200, "[+]store ok\n[+]node ok\nreadyz check passed\n".into()));
}

#[test]
fn the_log_level_is_told_and_changed_and_a_bad_one_refused() {
    let place = Place::new();
    assert_eq!(place.get("/log-level"), (200, "info\n".into()));
    assert_eq!(place.ask("PUT", "/log-level", "debug"), (200, "debug\n".into()));
    assert_eq!(place.get("/log-level"), (200, "debug\n".into()));
    let (status, said) = place.ask("PUT", "/log-level", "loud");
    assert!(status == 400 && said.contains("error, warn, info, debug or trace"), "{said}");
    assert_eq!(place.ask("PUT", "/log-level", &"x".repeat(1000)), (400, "a level has at most 64 bytes\n".into()));
    assert_eq!(place.ask("POST", "/log-level", "info").0, 405);
    assert_eq!(place.get("/log-level"), (200, "debug\n".into()));
}

#[test]
fn numbers_and_pictures_of_the_parts_are_told_and_what_there_is_otherwise() {
    let place = Place::new();
    let mut sources = Sources::default();
    sources.metrics(|| vec![MetricFamily::counter("store_written_bytes", "What was written", 7)]);
    sources.dump("queue", || json!({"waiting": [{"key": "a/b", "why": "a write of its own is not seen yet"}]}));
    place.admin.attend(sources);
    let (status, numbers) = place.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "# HELP knoll_store_written_bytes What was written",
        "# TYPE knoll_store_written_bytes counter",
        "# UNIT knoll_store_written_bytes bytes",
        "knoll_store_written_bytes_total 7.0",
    ] {
        assert!(numbers.lines().any(|one| one.starts_with(line)), "{line} is missing in\n{numbers}");
    }
    let (status, dump) = place.get("/debug/queue");
    assert!(status == 200 && dump.contains("is not seen yet"), "{dump}");
    let (status, known) = place.get("/debug/nothing");
    assert!(status == 404 && known.contains("/debug/queue\n") && known.contains("/metrics\n"), "{known}");
    assert_eq!(place.get("/").0, 200);
}

/// RBAC over a store of its own: `reader` may get the numbers.
fn rbac(place: &Place) -> Arc<dyn Authority> {
    let directory = place.directory.path();
    let store = Store::open(&directory.join("store"), Options::default()).expect("opens");
    let put = |key: &str, value: Value| {
        let written = store.put(key, value.to_string().into_bytes().into(), Expect::Absent, Durability::Relaxed);
        place.rest.block_on(written).expect("it is written");
    };
    let rule = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]});
    put("/rbac.authorization.k8s.io/clusterroles//numbers", json!({"metadata": {"name": "numbers"}, "rules": [rule]}));
    put(
        "/rbac.authorization.k8s.io/clusterrolebindings//numbers",
        json!({
            "metadata": {"name": "numbers"}, "roleRef": {"kind": "ClusterRole", "name": "numbers"},
            "subjects": [{"kind": "User", "name": "reader"}],
        }),
    );
    let pki = Pki::open(&directory.join("pki"), Timestamp::now()).expect("a new one");
    let tokens = TokenKey::from_pem(&pki.token_key_pem().expect("a key"), "https://issuer").expect("a key");
    Arc::new(LocalAuthority::new(store, tokens, Timestamp::now))
}

#[test]
fn a_stranger_learns_that_it_is_well_and_nothing_else_without_a_right() {
    let place = Place::new();
    place.admin.attend(Sources::default());
    let from_outside = |method: &str, path: &str, headers: &str, certificate: Option<&str>| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        theirs.set_nonblocking(true).expect("it is set");
        let (admin, certificate) = (place.admin.clone(), certificate.map(|user| UserInfo::new(user, &[])));
        place.rest.spawn(async move {
            let stream = tokio::net::UnixStream::from_std(theirs).expect("a socket");
            let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("never closed");
            serve::connection(admin, stream, Caller::Stranger(certificate), permit).await;
        });
        exchange(ours, &request(method, path, headers, ""))
    };
    assert_eq!(from_outside("GET", "/readyz", "", None), (200, "ok".into()));
    assert_eq!(
        from_outside("GET", "/metrics", "", None),
        (503, "starting\n".into()),
        "nobody is let in before there is RBAC"
    );
    place.admin.obey(rbac(&place));
    for path in ["/livez", "/healthz", "/readyz"] {
        until_well(path, || from_outside("GET", path, "", None));
    }
    for (method, path) in
        [("GET", "/metrics"), ("GET", "/debug/queue"), ("GET", "/log-level"), ("PUT", "/log-level"), ("GET", "/")]
    {
        for (who, headers, certificate, wanted) in [
            ("nobody", "", None, 403),
            ("a bad token", "authorization: Bearer bad\r\n", None, 401),
            ("a certificate without a right", "", Some("somebody"), 403),
        ] {
            let (status, said) = from_outside(method, path, headers, certificate);
            assert_eq!(status, wanted, "{who}: {method} {path}: {said}");
        }
    }
    assert_eq!(from_outside("GET", "/metrics", "", Some("reader")).0, 200);
    let (status, said) = from_outside("PUT", "/log-level", "", Some("reader"));
    assert!(status == 403 && said.contains("/log-level"), "{said}");
}
