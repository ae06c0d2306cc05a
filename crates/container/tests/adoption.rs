//! What outlives what: containers outlive clients and monitors. Needs root and busybox-static.

mod support;

use std::fs;

use knoll_container::client::Client;
use knoll_container::protocol::{ContainerEvent, ExitStatus, Phase};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Site, container_id, sandbox_id, until};

const FILE: u8 = 2;

/// Kills a monitor as `kill -9` does and waits until it is gone.
async fn kill_monitor(client: &Client) {
    let pid = client.monitor().pid;
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    until("the monitor is dead", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test]
async fn containers_outlive_their_client() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "adopt").await;
    let started =
        site.start(&client, "adopt", "adopt", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done").await;
    site.wait_for_output("adopt", "line 2\n").await;
    drop(client);
    let client = site.connect().await;
    let listing = client.list().await.unwrap();
    assert_eq!(listing.containers, [started]);
    assert_eq!(listing.sandboxes[0].spec.id, sandbox_id("adopt"));
    assert_eq!(listing.sandboxes[0].boot_id, client.monitor().boot_id);
    let lines = site.output("adopt").lines().count();
    until("output goes on", || site.output("adopt").lines().count() > lines + 3).await;
    site.finish(&client).await;
}

#[tokio::test]
async fn containers_outlive_their_monitor() {
    let site = Site::isolated(FILE);
    let client = site.networked(1).await;
    let address = site.pod(&client, "survivor").await;
    let script = "trap 'echo bye; exit 9' TERM; i=0; while true; do i=$((i+1)); echo line $i; sleep 0.005; done";
    let started = site.start(&client, "survivor", "survivor", script).await;
    site.start(&client, "survivor", "brief", "sleep 0.05; exit 4").await;
    site.start(&client, "survivor", "done", "exit 5").await;
    client.wait(container_id("done")).await.unwrap();
    site.wait_for_output("survivor", "line 2\n").await;
    kill_monitor(&client).await;
    let brief = || {
        fs::read_to_string(format!(
            "/sys/fs/cgroup/memory/{}/cgroup.procs",
            started.cgroup.replace("survivor", "brief")
        ))
    };
    until("the brief one is over", || brief().map_or(true, |procs| procs.is_empty())).await;
    assert!(client.list().await.is_err());

    let client = site.connect().await;
    let listing = client.list().await.unwrap();
    assert_eq!(listing.sandboxes[0].address, Some(address));
    let by_id = |name: &str| listing.containers.iter().find(|c| c.spec.id == container_id(name)).unwrap();
    assert_eq!(*by_id("survivor"), started);
    assert!(matches!(&by_id("done").phase, Phase::Exited(exit) if exit.code == 5 && exit.known));
    let unseen = client.wait(container_id("brief")).await.unwrap();
    assert!(!unseen.known || unseen.code == 4, "{unseen:?}");

    // Not a line is lost, and its end is seen by a monitor that is not its parent.
    let events = client.subscribe().await.unwrap();
    let lines = site.output("survivor").lines().count();
    until("output goes on", || site.output("survivor").lines().count() > lines + 10).await;
    client.signal(container_id("survivor"), 15).await.unwrap();
    let exit = client.wait(container_id("survivor")).await.unwrap();
    assert!(is_exit(&exit, 9), "{exit:?}");
    let output = site.output("survivor");
    let numbers: Vec<usize> = output.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    assert!(output.ends_with("bye\n"));
    let mut events = events;
    let Some(ContainerEvent::Exited { container, exit: told, .. }) = events.recv().await else { panic!("no event") };
    assert_eq!((container, told), (container_id("survivor"), exit));

    // The sandbox goes on too: same address, same namespaces.
    let (_, output) =
        site.run(&client, site.spec("survivor", "later", "hostname; ip -o addr show eth0 | awk '{ print $4 }'")).await;
    assert_eq!(output, format!("survivor\n{address}/32\n"));
    let other = site.pod(&client, "other").await;
    assert_ne!(other, address);
    site.finish(&client).await;
}

#[tokio::test]
async fn an_address_does_not_come_back_when_everything_was_ended_or_its_monitor_was_killed() {
    let site = Site::isolated(FILE);
    let client = site.networked(0).await;
    let mut given = vec![site.pod(&client, "first").await];
    client.shutdown(true).await.unwrap();
    until("the monitor is gone", || !site.launcher.options.socket.exists()).await;
    let client = site.networked(2).await;
    given.push(site.pod(&client, "second").await);
    client.remove_sandbox(sandbox_id("second")).await.unwrap();
    kill_monitor(&client).await;
    let client = site.networked(0).await;
    given.push(site.pod(&client, "third").await);
    assert!(given.is_sorted_by(|one, next| one < next), "{given:?}");
    site.finish(&client).await;
}

#[tokio::test]
async fn what_a_killed_monitor_had_only_begun_is_ended() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let sandbox = site.sandbox(&client, "begun").await;
    let started = site.start(&client, "begun", "kept", "sleep 1000").await;
    // As a monitor leaves it that is killed between the fork of a container and its record.
    let mut stray = std::process::Command::new("/bin/busybox").args(["sleep", "1000"]).spawn().unwrap();
    let groups: Vec<_> = support::cgroups(&sandbox.cgroup).into_iter().filter(|group| group.is_dir()).collect();
    for group in &groups {
        let group = group.join("stray");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cgroup.procs"), stray.id().to_string()).unwrap();
    }
    kill_monitor(&client).await;
    let client = site.connect().await;
    let end = tokio::task::spawn_blocking(move || stray.wait());
    let end = tokio::time::timeout(support::PATIENCE, end).await.expect("it is ended");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&end.unwrap().unwrap()), Some(9));
    until("its groups are gone", || !groups.iter().any(|group| group.join("stray").exists())).await;
    assert_eq!(client.list().await.unwrap().containers, [started], "what was noted down goes on");
    site.finish(&client).await;
}

#[tokio::test]
async fn a_monitor_that_ends_politely_leaves_containers_alone() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "polite").await;
    let started = site.start(&client, "polite", "polite", "sleep 1000").await;
    client.shutdown(false).await.unwrap();
    let client = site.connect().await;
    assert_eq!(client.list().await.unwrap().containers, [started]);
    client.kill(container_id("polite")).await.unwrap();
    let exit = client.wait(container_id("polite")).await.unwrap();
    assert!(is_exit(&exit, 137), "{exit:?}");
    site.finish(&client).await;
}

/// Whether this is what is said of a container that ended with `code`, by a monitor that is not its parent: since
/// Linux 6.15 it always knows.
fn is_exit(exit: &ExitStatus, code: i32) -> bool {
    let certain = nix::sys::utsname::uname().unwrap().release().to_str().is_some_and(|release| {
        let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(15))
    });
    (exit.code, exit.known) == (code, true) || !certain && (exit.code, exit.known) == (255, false)
}

#[tokio::test]
async fn only_one_monitor_has_a_state_directory() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    assert!(!site.launcher.ensure().unwrap(), "a second monitor was started");
    let mut elsewhere = site.launcher.clone();
    elsewhere.options.socket = site.dir.path().join("other.sock");
    let error = elsewhere.ensure().unwrap_err();
    assert!(error.to_string().contains("another monitor runs"), "{error}");
    site.finish(&client).await;
}

#[tokio::test]
async fn what_whoever_starts_a_monitor_has_left_open_is_closed() {
    let site = Site::new(FILE);
    let left = site.dir.path().join("left-open");
    let file = fs::File::create(&left).unwrap();
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let client = site.connect().await;
    site.sandbox(&client, "closed").await;
    let container = site.start(&client, "closed", "closed", "sleep 1000").await;
    for pid in [client.monitor().pid, container.pid] {
        let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fd.unwrap().path()).collect();
        assert!(!open.is_empty());
        assert!(!open.iter().any(|fd| fs::read_link(fd).is_ok_and(|file| file == left)), "{pid}");
    }
    site.finish(&client).await;
}
