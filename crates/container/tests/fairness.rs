//! What one container or client does costs others nothing. Needs root and busybox-static.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use knoll_container::client::ExecPipes;
use knoll_container::protocol::{
    Call, ExecSpec, MAX_CALL, Message, Network, RefusalKind, Request, SandboxSpec, VERSION,
};
use support::{Site, container_id, sandbox_id};

const FILE: u8 = 6;
/// How long 60 MB of answers may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn floods_of_output_hold_nobody_up() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "flood").await;
    for number in 0..6 {
        let mut spec = site.spec("flood", &format!("flood-{number}"), "");
        spec.args = ["/bin/busybox", "yes", ""].map(str::to_owned).to_vec();
        client.start_container(spec).await.unwrap();
    }
    site.start(&client, "flood", "quiet", "for i in $(seq 50); do echo $i; done; sleep 1000").await;
    site.wait_for_output("quiet", "50\n").await;
    for _ in 0..50 {
        client.list().await.unwrap();
    }
    for number in 0..6 {
        let id = container_id(&format!("flood-{number}"));
        client.kill(id.clone()).await.unwrap();
        assert_eq!(client.wait(id).await.unwrap().code, 137);
    }
    site.finish(&client).await;
}

#[tokio::test]
async fn a_listing_longer_than_a_frame_comes_in_parts() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let text = "x".repeat(1_000_000);
    let mut names: Vec<String> = (0..20).map(|number| format!("long-{number:02}")).collect();
    for name in &names {
        let mut spec = SandboxSpec::new(sandbox_id(name), name.as_str());
        spec.network = Network::None;
        spec.annotations = BTreeMap::from([("text".to_owned(), text.clone())]);
        client.prepare_sandbox(spec).await.unwrap();
        let mut spec = site.spec(name, name, "sleep 1000");
        spec.annotations = BTreeMap::from([("text".to_owned(), text.clone())]);
        client.start_container(spec).await.unwrap();
    }
    let listing = client.list().await.unwrap();
    let sandboxes: Vec<&str> = listing.sandboxes.iter().map(|sandbox| sandbox.spec.id.as_str()).collect();
    assert_eq!(sandboxes, names);
    let containers: Vec<&str> = listing.containers.iter().map(|container| container.spec.id.as_str()).collect();
    assert_eq!(containers, names);
    names.clear();
    // What would not fit an answer is not taken in either.
    let mut spec = site.spec("long-00", "longest", "true");
    spec.env = vec![format!("A={}", "x".repeat(MAX_CALL))];
    let error = client.start_container(spec).await.unwrap_err();
    assert!(error.kind().is_none() && format!("{error:?}").contains("TooLong"), "{error:?}");
    site.finish(&client).await;
}

/// On a file system that does not answer it would hang; here it waits for the other end of a pipe.
#[tokio::test]
async fn an_exec_that_never_starts_is_given_up() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "late").await;
    site.start(&client, "late", "late", "echo up; sleep 1000").await;
    site.wait_for_output("late", "up\n").await;
    client.freeze(sandbox_id("late"), true).await.unwrap();
    let null = || std::os::fd::OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let spec = ExecSpec {
        container: container_id("late"),
        args: vec!["true".into()],
        env: vec![],
        cwd: None,
        user: None,
        tty: false,
        start_timeout_ms: Some(200),
    };
    let pipes = ExecPipes { stdin: null(), stdout: null(), stderr: null() };
    let error = client.exec(spec, pipes).await.err().unwrap();
    assert_eq!(
        (error.kind(), error.to_string()),
        (Some(RefusalKind::Start), "the exec did not start within 200 ms".into())
    );
    client.freeze(sandbox_id("late"), false).await.unwrap();
    client.remove_sandbox(sandbox_id("late")).await.unwrap();
    site.finish(&client).await;
}

fn frame(number: u64, request: Request) -> Vec<u8> {
    let body = serde_json::to_vec(&Call { number, fds: 0, request }).unwrap();
    let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    frame.extend(body);
    frame
}

#[tokio::test]
async fn a_client_that_does_not_read_waits_alone() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let mut spec = SandboxSpec::new(sandbox_id("long"), "long");
    spec.network = Network::None;
    spec.annotations = BTreeMap::from([("text".to_owned(), "x".repeat(100_000))]);
    client.prepare_sandbox(spec).await.unwrap();
    const CALLS: u64 = 600;
    let mut slow = UnixStream::connect(&site.launcher.options.socket).unwrap();
    let mut calls = frame(0, Request::Hello { version: VERSION });
    (1..=CALLS).for_each(|number| calls.extend(frame(number, Request::List { after: None })));
    let mut writer = slow.try_clone().unwrap();
    let written = std::thread::spawn(move || writer.write_all(&calls).unwrap());
    // 60 MB of answers are on their way, and nobody notices.
    for _ in 0..20 {
        assert_eq!(client.list().await.unwrap().sandboxes.len(), 1);
    }
    let answers = std::thread::spawn(move || {
        for expected in 0..=CALLS {
            let mut length = [0; 4];
            slow.read_exact(&mut length).unwrap();
            let mut body = vec![0; u32::from_le_bytes(length) as usize];
            slow.read_exact(&mut body).unwrap();
            let Message::Reply { number, result, .. } = serde_json::from_slice(&body).unwrap() else { panic!() };
            assert_eq!(number, expected);
            result.unwrap();
        }
    });
    let begun = Instant::now();
    while !answers.is_finished() {
        assert!(begun.elapsed() < PATIENCE, "the answers do not come");
        assert_eq!(client.list().await.unwrap().sandboxes.len(), 1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    written.join().unwrap();
    answers.join().unwrap();
    site.finish(&client).await;
}

#[tokio::test]
async fn what_is_no_request_costs_its_connection_and_no_other() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let long = u32::try_from(MAX_CALL).unwrap() + 1;
    for nonsense in [&b"\xff\xff\xff\xff"[..], &long.to_le_bytes(), b"\x02\0\0\0{]", b"\0\0\0\0"] {
        let mut stream = UnixStream::connect(&site.launcher.options.socket).unwrap();
        stream.write_all(nonsense).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "{nonsense:?}");
    }
    let missing = client.wait(container_id("nobody")).await.unwrap_err();
    assert_eq!(missing.kind(), Some(RefusalKind::NotFound));
    site.finish(&client).await;
}
