//! A monitor on a machine that has run out of something: it says of what, holds on to what runs, and goes on when
//! there is some again. Needs root and busybox-static.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use knoll_container::client::Client;
use knoll_container::protocol::{Network, RefusalKind, SandboxSpec};
use nix::mount::{MsFlags, mount, umount};
use support::{Site, container_id, sandbox_id};

const FILE: u8 = 8;

fn plain(name: &str) -> SandboxSpec {
    let mut spec = SandboxSpec::new(sandbox_id(name), name);
    spec.network = Network::None;
    spec
}

/// What runs still does, and its output still arrives.
async fn sees_to_its_container(site: &Site, client: &Client) {
    let before = site.output("steady").lines().count();
    support::until("output goes on", || site.output("steady").lines().count() > before + 3).await;
    assert_eq!(client.list().await.unwrap().containers.len(), 1);
}

async fn steady(site: &Site, client: &Client) {
    site.sandbox(client, "steady").await;
    site.start(client, "steady", "steady", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done").await;
}

#[tokio::test]
async fn without_files_requests_are_refused_and_clients_turned_away() {
    let mut site = Site::new(FILE);
    let wrapper = site.dir.path().join("few-files");
    let program = site.launcher.program.display();
    fs::write(&wrapper, format!("#!/bin/sh\nulimit -n 50\nexec {program} \"$@\"\n")).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    site.launcher.program = wrapper;
    let client = site.connect().await;
    steady(&site, &client).await;
    let others: Vec<UnixStream> =
        (0..60).map(|_| UnixStream::connect(&site.launcher.options.socket).unwrap()).collect();
    sees_to_its_container(&site, &client).await;
    let error = client.prepare_sandbox(plain("late")).await.unwrap_err();
    assert_eq!(error.kind(), Some(RefusalKind::Internal));
    assert!(error.to_string().to_lowercase().contains("too many open files"), "{error}");
    drop(others);
    let again = async {
        while client.prepare_sandbox(plain("late")).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, again).await.expect("there are files again");
    client.remove_sandbox(sandbox_id("late")).await.unwrap();
    sees_to_its_container(&site, &client).await;
    site.finish(&client).await;
}

#[tokio::test]
async fn on_a_full_disk_nothing_begins_and_nothing_ends() {
    let site = Site::new(FILE);
    let state = site.launcher.options.state_dir.clone();
    fs::create_dir(&state).unwrap();
    mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::empty(), Some("size=256k,mode=700")).unwrap();
    let client = site.connect().await;
    steady(&site, &client).await;
    site.sandbox(&client, "other").await;
    let filler = state.join("filler");
    let full = fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    sees_to_its_container(&site, &client).await;
    let error = client.prepare_sandbox(plain("late")).await.unwrap_err();
    assert_eq!(error.kind(), Some(RefusalKind::Internal));
    assert!(error.to_string().to_lowercase().contains("no space left"), "{error}");
    let error = client.start_container(site.spec("other", "late", "sleep 1000")).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("no space left"), "{error}");
    sees_to_its_container(&site, &client).await;
    fs::remove_file(&filler).unwrap();
    client.prepare_sandbox(plain("late")).await.unwrap();
    site.start(&client, "late", "late", "sleep 1000").await;
    client.remove_sandbox(sandbox_id("late")).await.unwrap();
    client.remove_sandbox(sandbox_id("other")).await.unwrap();
    sees_to_its_container(&site, &client).await;
    client.shutdown(true).await.unwrap();
    // The monitor holds its directory until it is gone.
    support::until("nothing uses the disk", || umount(&state).is_ok()).await;
}

#[tokio::test]
async fn without_processes_starts_are_refused_by_name() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    steady(&site, &client).await;
    let limit = support::cgroups(&site.name).into_iter().map(|group| group.join("pids.max")).find(|file| file.exists());
    let limit = limit.expect("a pids controller");
    let before = fs::read_to_string(&limit).unwrap();
    // The monitor's own child could not even be made.
    fs::write(&limit, "1").unwrap();
    let error = client.prepare_sandbox(plain("late")).await.unwrap_err();
    assert_eq!(error.kind(), Some(RefusalKind::Internal));
    assert!(error.to_string().to_lowercase().contains("temporarily unavailable"), "{error}");
    client.list().await.unwrap();
    fs::write(&limit, before.trim()).unwrap();
    client.prepare_sandbox(plain("late")).await.unwrap();
    site.start(&client, "late", "late", "sleep 1000").await;
    client.kill(container_id("late")).await.unwrap();
    assert_eq!(client.wait(container_id("late")).await.unwrap().code, 137);
    site.finish(&client).await;
}
