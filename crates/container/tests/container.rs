//! Containers from the outside: what runs, what it sees, what it may do, how it ends. Needs root and busybox-static.

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use knoll_container::client::ClientError;
use knoll_container::protocol::{
    Capabilities, ContainerSpec, Mount, MountPropagation, MountSource, RefusalKind, Resources, Rlimit, Seccomp, User,
};
use support::{Site, container_id, sandbox_id};

const FILE: u8 = 0;

fn bind(path: std::path::PathBuf, destination: &str, read_only: bool) -> Mount {
    Mount {
        destination: destination.into(),
        source: MountSource::Bind { path, sub_path: None },
        read_only,
        propagation: MountPropagation::Private,
    }
}

#[tokio::test]
async fn a_command_runs_and_leaves_its_exit_code_and_output() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let (exit, output) = site.script(&client, "hello", "echo out; echo err >&2; printf end; exit 7").await;
    assert_eq!((exit.code, exit.signal, exit.known, exit.oom_killed), (7, None, true, false));
    let (lines, errors) = site.streams("hello");
    assert_eq!((lines.as_str(), errors.as_str()), ("out\nend\n", "stderr err\n"), "{output}");
    site.finish(&client).await;
}

#[tokio::test]
async fn a_container_sees_what_the_runtime_contract_promises() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let script = r#"
        for f in fd full null ptmx random stdin stdout stderr tty urandom zero; do test -e /dev/$f || echo missing $f; done
        for f in full null random tty urandom zero; do stat -c '%n %A' /dev/$f; done
        for f in fd stdin ptmx; do readlink /dev/$f; done
        test -e /dev/console && echo console
        test -d /dev/mqueue -a -d /dev/shm -a -d /proc/self/fd || echo missing directories
        wc -c < /proc/self/fd/0
        head -c 3 /dev/zero | wc -c
        echo mine > /dev/stdout
        touch /tmp/x /var/log/y || echo not writable
        echo pid $$
        hostname
        cat /proc/self/cgroup | head -1
    "#;
    let (exit, output) = site.script(&client, "contract", script).await;
    assert_eq!(exit.code, 0, "{output}");
    for node in ["full", "null", "random", "tty", "urandom", "zero"] {
        assert!(output.contains(&format!("/dev/{node} crw-rw-rw-\n")), "{output}");
    }
    assert!(output.contains("/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n0\n3\nmine\npid 1\ncontract\n"), "{output}");
    assert!(!output.contains("missing") && !output.contains("console") && !output.contains("not writable"), "{output}");
    assert!(output.trim_end().ends_with(":/"), "{output}");
    site.finish(&client).await;
}

#[tokio::test]
async fn limits_are_visible_inside_and_cannot_be_changed() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "limits").await;
    let script = r#"
        cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory.max \
            /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null
        for f in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
            test -e $f && ( echo 1000000000 > $f ) 2>/dev/null && echo changed
        done
        ( mkdir /sys/fs/cgroup/x || mkdir /sys/fs/cgroup/memory/x ) 2>/dev/null && echo made
        exit 0
    "#;
    let mut spec = site.spec("limits", "limits", script);
    spec.resources = Resources {
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        memory_bytes: Some(64 << 20),
        pids: Some(77),
        cpu_period_us: None,
    };
    let (exit, output) = site.run(&client, spec).await;
    assert_eq!(exit.code, 0, "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines == ["50000", "67108864", "77"] || lines == ["50000 100000", "67108864", "77"], "{output}");
    site.finish(&client).await;
}

#[tokio::test]
async fn running_out_of_memory_is_reported() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "oom").await;
    let mut spec = site.spec("oom", "oom", "exec dd if=/dev/zero of=/dev/null bs=400M count=1");
    spec.resources.memory_bytes = Some(20 << 20);
    let (exit, _) = site.run(&client, spec).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), true));
    site.finish(&client).await;
}

#[tokio::test]
async fn what_belongs_to_the_machine_is_hidden_or_read_only() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let script = r#"
        ( echo 1 > /proc/sys/kernel/panic ) 2>/dev/null && echo sysctl
        ( echo h > /proc/sysrq-trigger ) 2>/dev/null && echo sysrq
        ( touch /sys/x ) 2>/dev/null && echo sys
        head -c 1 /proc/keys | wc -c; head -c 1 /proc/interrupts | wc -c
        ls /sys/firmware | wc -l
        mount -t tmpfs none /tmp 2>/dev/null && echo mount
        unshare -U true 2>/dev/null && echo unshare
        mknod /tmp/disk b 254 0 2>/dev/null && head -c 1 /tmp/disk 2>/dev/null && echo disk
        mknod /dev/disk b 254 0 2>/dev/null && head -c 1 /dev/disk 2>/dev/null && echo devdisk
        awk '/^Seccomp:|^NoNewPrivs:|^CapEff:|^CapBnd:/ { print $1, $2 }' /proc/self/status
        exit 0
    "#;
    let (exit, output) = site.script(&client, "hidden", script).await;
    assert_eq!(exit.code, 0, "{output}");
    let bits = "00000000a80425fb";
    assert!(output.starts_with("0\n0\n0\n"), "{output}");
    for line in [format!("CapEff: {bits}"), format!("CapBnd: {bits}"), "NoNewPrivs: 1".into(), "Seccomp: 2".into()] {
        assert!(output.contains(&line), "{line}: {output}");
    }
    assert_eq!(output.lines().count(), 7, "{output}");
    site.finish(&client).await;
}

#[tokio::test]
async fn privileges_follow_the_spec() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "caps").await;
    let status = "awk '/^Seccomp:|^NoNewPrivs:|^CapBnd:/ { print $2 }' /proc/self/status";
    let mut spec = site.spec("caps", "dropped", status);
    spec.security.capabilities = Capabilities { add: vec!["NET_BIND_SERVICE".into()], drop: vec!["ALL".into()] };
    spec.security.no_new_privileges = false;
    let (_, output) = site.run(&client, spec).await;
    assert_eq!(output, "0000000000000400\n0\n2\n");

    let mut spec = site.spec("caps", "free", "mount -t tmpfs none /tmp && echo mounted; ls /dev | wc -l");
    spec.security.privileged = true;
    let (_, output) = site.run(&client, spec).await;
    assert!(output.starts_with("mounted\n"), "{output}");

    let mut spec = site.spec("caps", "unfiltered", status);
    spec.security.seccomp = Seccomp::Unconfined;
    let (_, output) = site.run(&client, spec).await;
    assert!(output.ends_with("1\n0\n"), "{output}");

    let mut spec = site.spec("caps", "wrong", "true");
    spec.security.capabilities.add = vec!["FLYING".into()];
    let error = client.start_container(spec).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (Some(RefusalKind::Invalid), "there is no capability \"FLYING\"".into())
    );
    site.finish(&client).await;
}

#[tokio::test]
async fn users_come_from_the_image_or_the_spec() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "users").await;
    let script = "id; echo $HOME; echo hi > /dev/stderr; touch /x 2>/dev/null || echo denied; awk '/^CapEff:/ { print $2 }' /proc/self/status";
    let mut spec = site.spec("users", "named", script);
    spec.security.user = User { name: "app".into(), gid: None, groups: vec![4000] };
    let (exit, output) = site.run(&client, spec).await;
    assert_eq!(exit.code, 0, "{output}");
    let (lines, errors) = site.streams("named");
    let want = "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra),4000\n/home/app\ndenied\n0000000000000000\n";
    assert_eq!((lines.as_str(), errors.as_str()), (want, "stderr hi\n"));

    let mut spec = site.spec("users", "number", "id -u; id -g");
    spec.security.user = User::uid(65532);
    assert_eq!(site.run(&client, spec).await.1, "65532\n0\n");

    let mut spec = site.spec("users", "nobody", "true");
    spec.security.user.name = "ghost".into();
    let error = client.start_container(spec).await.unwrap_err();
    assert_eq!(error.kind(), Some(RefusalKind::Start));
    assert_eq!(error.to_string(), "unable to find user ghost: no matching entries in passwd file");
    site.finish(&client).await;
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "bad").await;
    let mut attempt = 0;
    let mut refused = async |change: &dyn Fn(&mut ContainerSpec)| {
        attempt += 1;
        let mut spec = site.spec("bad", &format!("bad-{attempt}"), "true");
        change(&mut spec);
        let error: ClientError = client.start_container(spec).await.unwrap_err();
        (error.kind(), error.to_string())
    };
    let start = Some(RefusalKind::Start);
    let missing = refused(&|spec| spec.args = vec!["/x".into()]).await;
    assert_eq!(missing, (start, "exec: \"/x\": stat /x: no such file or directory".into()));
    let unknown = refused(&|spec| spec.args = vec!["nothing".into()]).await;
    assert_eq!(unknown, (start, "exec: \"nothing\": executable file not found in $PATH".into()));
    let no_program = refused(&|spec| spec.args = vec!["/etc/passwd".into()]).await;
    assert_eq!(no_program, (start, "exec: \"/etc/passwd\": permission denied".into()));
    fs::write(site.rootfs().join("bin/garbage"), "\u{1}nonsense").unwrap();
    fs::set_permissions(site.rootfs().join("bin/garbage"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let garbage = refused(&|spec| spec.args = vec!["/bin/garbage".into()]).await;
    assert_eq!(garbage, (start, "exec /bin/garbage: exec format error".into()));
    let (kind, message) = refused(&|spec| spec.mounts = vec![bind("/no/such/thing".into(), "/m", false)]).await;
    assert_eq!(
        (kind, message.as_str()),
        (start, "cannot mount \"/no/such/thing\" at \"/m\": no such file or directory")
    );
    let file = refused(&|spec| spec.cwd = "/etc/passwd".into()).await;
    assert_eq!(file, (start, "cannot use \"/etc/passwd\" as working directory: not a directory".into()));
    let listing = client.list().await.unwrap();
    assert_eq!((listing.containers.len(), listing.sandboxes.len()), (0, 1));
    let gone = client.wait(container_id("bad-1")).await.unwrap_err();
    assert_eq!(gone.kind(), Some(RefusalKind::NotFound));
    site.finish(&client).await;
}

#[tokio::test]
async fn volumes_are_mounted_where_and_how_the_spec_says() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "volumes").await;
    let volume = site.dir.path().join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::write(volume.join("file"), "content\n").unwrap();
    fs::write(volume.join("sub/inner"), "inner\n").unwrap();
    symlink("/etc", volume.join("escape")).unwrap();
    let script = r#"
        cat /ro/file /one/file.txt /sub/inner
        ( echo x > /ro/file ) 2>/dev/null && echo wrote ro
        echo new > /rw/new && cat /rw/new
        ls /made-by-subpath | wc -l
        ls /escaped 2>&1
        stat -c %a /scratch
        awk '$2 == "/scratch" { print $3 }' /proc/mounts
        pwd
    "#;
    let mut spec = site.spec("volumes", "volumes", script);
    let sub = |sub: &str, destination: &str| Mount {
        destination: destination.into(),
        source: MountSource::Bind { path: volume.clone(), sub_path: Some(sub.into()) },
        read_only: false,
        propagation: MountPropagation::Private,
    };
    spec.mounts = vec![
        bind(volume.clone(), "/ro", true),
        bind(volume.clone(), "/rw", false),
        bind(volume.join("file"), "/one/file.txt", true),
        sub("sub", "/sub"),
        sub("a/b", "/made-by-subpath"),
        Mount {
            destination: "/scratch".into(),
            source: MountSource::Tmpfs { size: Some(1 << 20), mode: 0o1777 },
            read_only: false,
            propagation: MountPropagation::HostToContainer,
        },
    ];
    spec.cwd = "/made/by/cwd".into();
    let (exit, output) = site.run(&client, spec.clone()).await;
    assert_eq!(exit.code, 0, "{output}");
    assert_eq!(
        output,
        "content\ncontent\ninner\nnew\n0\nls: /escaped: No such file or directory\n1777\ntmpfs\n/made/by/cwd\n"
    );
    assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "new\n");
    assert!(volume.join("a/b").is_dir());

    // A link in the volume leads nowhere but into the volume.
    spec.id = container_id("escape");
    spec.log_path = Some(site.log("escape"));
    spec.mounts = vec![sub("escape/passwd-made-here", "/e")];
    let error = client.start_container(spec).await.unwrap_err();
    assert_eq!(error.kind(), Some(RefusalKind::Start), "{error}");
    assert!(!std::path::Path::new("/etc/passwd-made-here").exists());
    site.finish(&client).await;
}

#[tokio::test]
async fn the_root_is_private_and_can_be_read_only() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let (_, output) = site.script(&client, "one", "echo mine > /etc/passwd; cat /etc/passwd").await;
    assert_eq!(output, "mine\n");
    assert!(fs::read_to_string(site.rootfs().join("etc/passwd")).unwrap().starts_with("root:"));
    site.sandbox(&client, "ro").await;
    let mut spec = site.spec("ro", "ro", "touch /x 2>/dev/null && echo wrote; touch /dev/shm/y && echo shm");
    spec.security.read_only_root = true;
    assert_eq!(site.run(&client, spec).await.1, "shm\n");
    let mut spec = site.spec("ro", "limits", "ulimit -n; cat /proc/self/oom_score_adj");
    spec.rlimits.insert("nofile".into(), Rlimit { soft: 123, hard: 456 });
    spec.oom_score_adj = Some(900);
    assert_eq!(site.run(&client, spec).await.1, "123\n900\n");
    site.finish(&client).await;
}

#[tokio::test]
async fn signals_reach_the_program_and_ids_are_taken_once() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "signals").await;
    site.start(
        &client,
        "signals",
        "trap",
        "trap 'echo caught; exit 3' TERM; echo ready; while true; do sleep 0.01; done",
    )
    .await;
    site.wait_for_output("trap", "ready").await;
    let taken = client.start_container(site.spec("signals", "trap", "true")).await.unwrap_err();
    assert_eq!(taken.kind(), Some(RefusalKind::Exists));
    let running = client.remove_container(container_id("trap")).await.unwrap_err();
    assert_eq!(running.kind(), Some(RefusalKind::State));
    client.signal(container_id("trap"), 15).await.unwrap();
    assert_eq!(client.wait(container_id("trap")).await.unwrap().code, 3);
    assert!(site.output("trap").contains("caught"));
    client.signal(container_id("trap"), 15).await.unwrap();
    client.remove_container(container_id("trap")).await.unwrap();
    client.remove_container(container_id("trap")).await.unwrap();
    assert!(client.list().await.unwrap().containers.is_empty());

    site.start(&client, "signals", "stubborn", "trap '' TERM; echo ready; while true; do sleep 0.01; done").await;
    site.wait_for_output("stubborn", "ready").await;
    client.kill(container_id("stubborn")).await.unwrap();
    let exit = client.wait(container_id("stubborn")).await.unwrap();
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
    site.finish(&client).await;
}

#[tokio::test]
async fn containers_of_a_sandbox_can_share_process_ids() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let mut spec = knoll_container::protocol::SandboxSpec::new(sandbox_id("shared"), "shared");
    spec.network = knoll_container::protocol::Network::None;
    spec.shared_pid = true;
    client.prepare_sandbox(spec).await.unwrap();
    site.start(&client, "shared", "first", "echo $$; sleep 1000 & wait").await;
    site.wait_for_output("first", "2\n").await;
    let (_, output) = site.run(&client, site.spec("shared", "second", "ps")).await;
    assert!(output.contains("sleep 1000"), "{output}");
    client.remove_sandbox(sandbox_id("shared")).await.unwrap();
    assert!(client.list().await.unwrap().sandboxes.is_empty());
    site.finish(&client).await;
}

#[tokio::test]
async fn a_frozen_sandbox_stands_still_until_it_is_thawed() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "ice").await;
    site.start(&client, "ice", "ice", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.005; done").await;
    site.wait_for_output("ice", "3\n").await;
    client.freeze(sandbox_id("ice"), true).await.unwrap();
    assert!(client.list().await.unwrap().sandboxes[0].frozen);
    // What it wrote before may still be on its way; after another round trip it is there.
    client.list().await.unwrap();
    let before = site.output("ice");
    client.reclaim(sandbox_id("ice")).await.unwrap();
    let stats = client.stats(sandbox_id("ice")).await.unwrap();
    assert!(stats.total.pids >= 1 && stats.total.memory_bytes > 0 && stats.containers.len() == 1, "{stats:?}");
    assert_eq!(site.output("ice"), before);
    client.freeze(sandbox_id("ice"), false).await.unwrap();
    let next = format!("\n{}\n", before.lines().count() + 5);
    site.wait_for_output("ice", &next).await;
    client.freeze(sandbox_id("ice"), true).await.unwrap();
    client.remove_sandbox(sandbox_id("ice")).await.unwrap();
    site.finish(&client).await;
}

#[tokio::test]
async fn limits_can_be_changed_while_it_runs() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "update").await;
    let script =
        "read x < /dev/stdin; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null";
    let mut spec = site.spec("update", "update", script);
    spec.resources.memory_bytes = Some(32 << 20);
    spec.stdin = knoll_container::protocol::Stdin::Pipe;
    let status = client.start_container(spec).await.unwrap();
    for memory_bytes in [Some(64 << 20), None, Some(48 << 20)] {
        client.update(container_id("update"), Resources { memory_bytes, ..Resources::default() }).await.unwrap();
    }
    fs::write(status.stdin.unwrap(), "go\n").unwrap();
    client.wait(container_id("update")).await.unwrap();
    assert_eq!(site.output("update"), format!("{}\n", 48 << 20));
    site.finish(&client).await;
}

#[tokio::test]
async fn when_memory_runs_out_the_monitor_is_spared_and_its_containers_are_not() {
    let mut site = Site::new(FILE);
    let program = site.launcher.program.display();
    let script = format!("echo 300 >/proc/self/oom_score_adj; exec {program} \"$@\"");
    site.launcher.args = ["-c", &script, "sh"].map(Into::into).to_vec();
    site.launcher.program = "/bin/sh".into();
    let client = site.connect().await;
    let stream = std::os::unix::net::UnixStream::connect(&site.launcher.options.socket).unwrap();
    let monitor = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).unwrap().pid();
    // Only who has the capability may be spared; without it, the monitor is worth what it was started as.
    let may = "echo -999 2>/dev/null >/proc/self/oom_score_adj";
    let may = std::process::Command::new("sh").args(["-c", may]).status().unwrap().success();
    let expected = if may { "-999\n" } else { "300\n" };
    assert_eq!(fs::read_to_string(format!("/proc/{monitor}/oom_score_adj")).unwrap(), expected);
    let script = "cat /proc/self/oom_score_adj; echo -999 2>/dev/null >/proc/self/oom_score_adj || echo denied";
    assert_eq!(site.script(&client, "one", script).await.1, "0\ndenied\n");
    site.finish(&client).await;
}
