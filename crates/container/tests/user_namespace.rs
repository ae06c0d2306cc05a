//! Sandboxes with a user namespace of their own. Needs root, busybox-static, and a file system with idmapped mounts.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use knoll_container::client::{Client, ExecPipes};
use knoll_container::protocol::{
    ExecSpec, Mount, MountPropagation, MountSource, Network, RefusalKind, SandboxSpec, SandboxStatus, User,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Site, container_id, sandbox_id, until};

const FILE: u8 = 7;

fn mapped(name: &str) -> SandboxSpec {
    let mut spec = SandboxSpec::new(sandbox_id(name), name);
    spec.network = Network::None;
    spec.user_namespace = true;
    spec
}

async fn sandbox(client: &Client, name: &str) -> SandboxStatus {
    client.prepare_sandbox(mapped(name)).await.unwrap()
}

#[tokio::test]
async fn root_inside_is_nobody_outside() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let ids = sandbox(&client, "mapped").await.ids.unwrap();
    let volume = site.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("theirs"), "content").unwrap();
    chown(volume.join("theirs"), Some(1000), Some(1001)).unwrap();
    fs::set_permissions(volume.join("theirs"), fs::Permissions::from_mode(0o600)).unwrap();
    let script = r#"
        cat /proc/self/uid_map /proc/self/gid_map | awk '{ print $1, $3 }'
        id
        stat -c '%u %g %a' /etc/passwd /v/theirs / /dev /made
        cat /v/theirs; echo
        echo new > /v/new && echo x > /etc/mine && rm /etc/group && mkdir /made/more && echo written
        chown 1000:1001 /v/new && echo given
        echo out > /dev/stdout; echo err > /dev/stderr; echo null > /dev/null
        ( echo 1 > /proc/sys/kernel/panic ) 2>/dev/null && echo sysctl
        ( echo h > /proc/sysrq-trigger ) 2>/dev/null && echo sysrq
        touch /dev/shm/x /tmp/y && test -c /dev/pts/ptmx && echo places
        sleep 1000
    "#;
    let mut spec = site.spec("mapped", "mapped", script);
    spec.mounts = [("/v", volume.clone()), ("/made/here", volume.join("theirs"))]
        .map(|(destination, path)| Mount {
            destination: destination.into(),
            source: MountSource::Bind { path, sub_path: None },
            read_only: false,
            propagation: MountPropagation::Private,
        })
        .to_vec();
    spec.security.capabilities.add = vec!["SYS_ADMIN".into()];
    let status = client.start_container(spec).await.unwrap();
    site.wait_for_output("mapped", "places\n").await;
    site.wait_for_output("mapped", "stderr err\n").await;
    let want = "0 65536\n0 65536\nuid=0(root) gid=0(root) groups=0(root)\n0 0 644\n1000 1001 600\n0 0 755\n0 0 755\n\
                0 0 755\ncontent\nwritten\ngiven\nout\nplaces\n";
    let (lines, errors) = site.streams("mapped");
    assert_eq!((lines.as_str(), errors.as_str()), (want, "stderr err\n"));
    let outside = fs::metadata(format!("/proc/{}", status.pid)).unwrap();
    assert_eq!(outside.uid(), ids.first);
    let new = fs::metadata(volume.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (1000, 1001));

    // Everything in it is its own.
    let script = "mkdir /m && mount -t tmpfs none /m && echo mounted; hostname changed && hostname; \
                  umount /proc/keys 2>/dev/null && echo unmasked; mount -o remount,rw /sys 2>/dev/null && echo loosened";
    let mut spec = site.spec("mapped", "admin", script);
    spec.security.capabilities.add = vec!["SYS_ADMIN".into()];
    assert_eq!(site.run(&client, spec).await.1, "mounted\nchanged\n");
    let mut spec = site.spec("mapped", "user", "id -u; cat /proc/self/uid_map | wc -l; echo x > /dev/stdout");
    spec.security.user = User::uid(1000);
    assert_eq!(site.run(&client, spec).await.1, "1000\n1\nx\n");
    let mut spec = site.spec("mapped", "beyond", "id -u");
    spec.security.user = User::uid(70_000);
    let error = client.start_container(spec).await.unwrap_err();
    assert_eq!(error.to_string(), "user or group 70000 is none of the 65536 that a user namespace has");
    // An exec is as much nobody.
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let null = || std::os::fd::OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let exec = ExecSpec {
        container: container_id("mapped"),
        args: ["sh", "-c", "id -u; awk '{ print $2 }' /proc/self/uid_map; cat /v/theirs"].map(str::to_owned).to_vec(),
        env: vec![],
        cwd: Some("/made/by/exec".into()),
        user: None,
        tty: false,
        start_timeout_ms: None,
    };
    let exec = client.exec(exec, ExecPipes { stdin: null(), stdout: write, stderr: null() }).await.unwrap();
    assert_eq!(exec.wait().await.unwrap().code, 0);
    let mut output = String::new();
    std::io::Read::read_to_string(&mut fs::File::from(read), &mut output).unwrap();
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["0", &ids.first.to_string(), "content"]);
    site.finish(&client).await;
}

#[tokio::test]
async fn ranges_are_distinct_and_outlive_the_monitor() {
    let site = Site::isolated(FILE);
    let client = site.networked(0).await;
    let mut pod = SandboxSpec::new(sandbox_id("pod"), "pod");
    pod.user_namespace = true;
    pod.shared_pid = true;
    let pod = client.prepare_sandbox(pod).await.unwrap();
    assert!(pod.address.is_some());
    site.start(&client, "pod", "pod", "sleep 1000").await;
    let script = format!(
        "ping -c 1 -W 2 {} > /dev/null && echo reached; ip link add d0 type dummy 2>/dev/null; \
                          ip addr add 192.0.2.9/32 dev lo && echo own",
        site.network.gateway
    );
    let mut spec = site.spec("pod", "net", &script);
    spec.security.capabilities.add = vec!["NET_ADMIN".into()];
    assert_eq!(site.run(&client, spec).await.1, "reached\nown\n");
    let monitor = i32::try_from(client.monitor().pid).unwrap();
    kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
    until("the monitor is gone", || !std::path::Path::new(&format!("/proc/{monitor}/exe")).exists()).await;
    let client = site.connect().await;
    assert_eq!(client.list().await.unwrap().sandboxes[0].ids, pod.ids);
    let other = sandbox(&client, "other").await;
    assert!(other.ids.unwrap().first >= pod.ids.unwrap().first + 65_536);
    let (_, output) = site.run(&client, site.spec("pod", "later", "awk '{ print $2 }' /proc/self/uid_map")).await;
    assert_eq!(output, format!("{}\n", pod.ids.unwrap().first));
    site.finish(&client).await;
}

#[tokio::test]
async fn what_would_undo_a_user_namespace_is_refused() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let mut spec = mapped("host");
    spec.host_pid = true;
    let error = client.prepare_sandbox(spec).await.unwrap_err();
    assert_eq!(error.kind(), Some(RefusalKind::Invalid));
    site.sandbox(&client, "plain").await;
    let mut spec = site.spec("plain", "plain", "true");
    spec.security.unmasked_proc = true;
    let error = client.start_container(spec).await.unwrap_err();
    assert_eq!(error.to_string(), "an unmasked /proc needs a user namespace of the sandbox's own");
    sandbox(&client, "mapped").await;
    let mut spec = site.spec("mapped", "unmasked", "head -c 1 /proc/interrupts | wc -c");
    spec.security.unmasked_proc = true;
    assert_eq!(site.run(&client, spec).await.1, "1\n");
    site.finish(&client).await;
}
