//! Containers that try to get at the monitor or the host: by `/proc`, by descriptors left open, by links laid in their
//! way. The shapes of published escapes are here by their numbers. Needs root and busybox-static.

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use knoll_container::client::{Client, ClientError, ExecPipes};
use knoll_container::protocol::{
    Capabilities, ContainerSpec, ExecSpec, Mount, MountPropagation, MountSource, Network, RefusalKind, SandboxSpec,
};
use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Site, container_id, sandbox_id, until};

const FILE: u8 = 4;

async fn shared_sandbox(client: &Client, name: &str) {
    let mut spec = SandboxSpec::new(sandbox_id(name), name);
    spec.network = Network::None;
    spec.shared_pid = true;
    client.prepare_sandbox(spec).await.unwrap();
}

/// With everything a pod may ask for that lets it look at others.
fn spying(site: &Site, sandbox: &str, name: &str, script: &str) -> ContainerSpec {
    let mut spec = site.spec(sandbox, name, script);
    spec.security.capabilities = Capabilities { add: vec!["SYS_PTRACE".into()], drop: vec![] };
    spec
}

fn exec_spec(container: &str, args: &[&str], cwd: Option<&str>) -> ExecSpec {
    ExecSpec {
        container: container_id(container),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![],
        cwd: cwd.map(Into::into),
        user: None,
        tty: false,
        start_timeout_ms: None,
    }
}

/// Runs to the end and gives what it printed.
async fn exec(client: &Client, spec: ExecSpec) -> Result<String, ClientError> {
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let program = client.exec(spec, ExecPipes { stdin: null(), stdout: write, stderr: null() }).await?;
    program.wait().await?;
    let mut output = String::new();
    File::from(read).read_to_string(&mut output).unwrap();
    Ok(output)
}

#[tokio::test]
async fn there_is_nothing_in_the_holder_of_a_shared_namespace() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    shared_sandbox(&client, "holder").await;
    let script = r#"
        echo files $(ls -A /proc/1/root/ /proc/1/cwd/ /proc/1/fd | grep -v : | wc -w)
        readlink /proc/1/exe
        awk '/^Uid|^CapEff|^CapBnd|^NoNewPrivs|^Seccomp:/ { print $1, $2 }' /proc/1/status
        echo maps $(grep -v -e knoll-pause -e stack -e heap -e vdso -e vvar -e vsyscall /proc/1/maps | wc -l)
        for kind in net ipc uts; do
            [ $(readlink /proc/1/ns/$kind) = $(readlink /proc/self/ns/$kind) ] || echo another $kind
        done
        ( echo x > /proc/1/exe ) 2>/dev/null && echo written
        ( echo b > /proc/sysrq-trigger ) 2>/dev/null && echo sysrq
        head -c 1 /proc/keys | wc -c
        sh -c 'true & exit 0'
        while grep -qs '^PPid:.1$' /proc/[0-9]*/status; do sleep 0.01; done
        grep -ls 'State:.Z' /proc/[0-9]*/status | wc -l
        exit 0
    "#;
    let (_, output) = site.run(&client, spying(&site, "holder", "holder", script)).await;
    let zero = "0000000000000000";
    let want = format!(
        "files 0\n/memfd:knoll-pause (deleted)\nUid: 65535\nCapEff: {zero}\nCapBnd: {zero}\nNoNewPrivs: 1\nSeccomp: 2\n\
         maps 0\n0\n0\n"
    );
    assert_eq!(output, want);
    site.finish(&client).await;
}

/// Looks at every process it can see, again and again, for anything of the host or the monitor.
fn look(site: &Site) -> String {
    let host = site.rootfs();
    format!(
        r#"
        echo looking
        while [ ! -e /tmp/stop ]; do
            for p in /proc/[0-9]*; do
                [ -e $p/root{host} ] && echo host root
                [ -e $p/cwd{host} ] && echo host directory
                while read -r line; do
                    case $line in *knoll-monitor*|*knoll-birth*heap*) echo monitor memory;; esac
                done 2>/dev/null < $p/maps
                for fd in $p/fd/*; do [ -e $fd/{name} ] && echo host descriptor; done
            done 2>/dev/null
        done
        echo done
        "#,
        host = host.display(),
        name = "rootfs",
    )
}

#[tokio::test]
async fn nothing_of_the_monitor_is_seen_while_others_start() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    shared_sandbox(&client, "spied").await;
    client.start_container(spying(&site, "spied", "spy", &look(&site))).await.unwrap();
    site.sandbox(&client, "alone").await;
    client.start_container(spying(&site, "alone", "lone", &look(&site))).await.unwrap();
    for spy in ["spy", "lone"] {
        site.wait_for_output(spy, "looking\n").await;
    }
    for number in 0..30 {
        for spy in ["spy", "lone"] {
            assert_eq!(exec(&client, exec_spec(spy, &["echo", "hello"], None)).await.unwrap(), "hello\n");
            // As a probe asks.
            let probe = ExecSpec { start_timeout_ms: Some(10_000), ..exec_spec(spy, &["echo", "well"], None) };
            assert_eq!(exec(&client, probe).await.unwrap(), "well\n");
        }
        let name = format!("other-{number}");
        let (exit, output) = site.run(&client, site.spec("spied", &name, "echo $$ > /dev/null; echo here")).await;
        assert_eq!((exit.code, output.as_str()), (0, "here\n"));
    }
    for spy in ["spy", "lone"] {
        exec(&client, exec_spec(spy, &["touch", "/tmp/stop"], None)).await.unwrap();
        client.wait(container_id(spy)).await.unwrap();
        assert_eq!(site.output(spy), "looking\ndone\n");
    }
    site.finish(&client).await;
}

#[tokio::test]
async fn a_program_that_cannot_start_beside_others_says_why() {
    let site = Site::new(FILE);
    fs::write(site.rootfs().join("bin/garbage"), "\x7fELF, but not really").unwrap();
    fs::set_permissions(site.rootfs().join("bin/garbage"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let client = site.connect().await;
    shared_sandbox(&client, "why").await;
    site.start(&client, "why", "why", "sleep 1000").await;
    let garbage = exec(&client, exec_spec("why", &["/bin/garbage"], None)).await.unwrap_err();
    assert_eq!(garbage.to_string(), "exec /bin/garbage: exec format error");
    let mut spec = site.spec("why", "garbage", "");
    spec.args = vec!["/bin/garbage".into()];
    let refused = client.start_container(spec).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.to_string()),
        (Some(RefusalKind::Start), "exec /bin/garbage: exec format error".into())
    );
    assert_eq!(client.list().await.unwrap().containers.len(), 1);
    site.finish(&client).await;
}

/// A program that is the monitor's child can make siblings, which then are, too.
#[tokio::test]
async fn siblings_of_an_exec_are_reaped() {
    let site = Site::new(FILE);
    fs::write(site.rootfs().join("bin/itself"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(site.rootfs().join("bin/itself"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let client = site.connect().await;
    site.sandbox(&client, "siblings").await;
    site.start(&client, "siblings", "siblings", "sleep 1000").await;
    for _ in 0..5 {
        exec(&client, exec_spec("siblings", &["/bin/itself"], None)).await.unwrap();
    }
    let monitor = client.monitor().pid;
    let children = format!("/proc/{monitor}/task/{monitor}/children");
    until("only the container is left", || fs::read_to_string(&children).unwrap().split(' ').count() == 2).await;
    site.finish(&client).await;
}

#[tokio::test]
async fn devices_are_out_of_reach_even_for_those_who_may_mount() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "devices").await;
    let script = r#"
        mount -t tmpfs none /tmp && cd /tmp && mknod kmsg c 1 11 && mknod disk b 254 0 && echo made
        for node in kmsg disk; do head -c 1 $node 2>&1 | grep -o 'not permitted'; done
        mkdir group; mount -t cgroup -o devices none group 2>/dev/null && ( echo a > group/devices.allow ) 2>/dev/null
        for node in kmsg disk; do head -c 1 $node 2>&1 | grep -o 'not permitted'; done
        mknod zero c 1 5 && head -c 1 zero | wc -c
        head -c 1 /dev/urandom | wc -c
        exit 0
    "#;
    let mut spec = site.spec("devices", "devices", script);
    spec.security.capabilities.add = vec!["SYS_ADMIN".into()];
    let (_, output) = site.run(&client, spec).await;
    let refused = "not permitted\n".repeat(4);
    assert_eq!(output, format!("made\n{refused}1\n1\n"));
    let mut spec = site.spec(
        "devices",
        "privileged",
        "mknod /dev/kmsg2 c 1 11 && head -c 0 /dev/kmsg2 && echo open; rm /dev/kmsg2",
    );
    spec.security.privileged = true;
    assert_eq!(site.run(&client, spec).await.1, "open\n");
    site.finish(&client).await;
}

/// CVE-2019-5736: a container keeps the runtime's program open and writes to it once it does not run any more.
#[tokio::test]
async fn the_monitors_program_cannot_be_written_through_proc() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let before = fs::read(&site.launcher.program).unwrap();
    let mut spec = SandboxSpec::new(sandbox_id("writer"), "writer");
    spec.network = Network::Host;
    spec.host_pid = true;
    client.prepare_sandbox(spec).await.unwrap();
    let monitor = client.monitor().pid;
    let script = format!(
        "exec 5< /proc/{monitor}/exe; echo open; while [ ! -e /tmp/go ]; do sleep 0.01; done
         echo x >> /proc/self/fd/5 && echo written; echo tried"
    );
    let mut spec = site.spec("writer", "writer", &script);
    spec.security.privileged = true;
    client.start_container(spec).await.unwrap();
    site.wait_for_output("writer", "open\n").await;
    kill(Pid::from_raw(i32::try_from(monitor).unwrap()), Signal::SIGKILL).unwrap();
    until("the monitor is gone", || !Path::new(&format!("/proc/{monitor}/exe")).exists()).await;
    let client = site.connect().await;
    exec(&client, exec_spec("writer", &["touch", "/tmp/go"], None)).await.unwrap();
    site.wait_for_output("writer", "tried\n").await;
    assert!(!site.output("writer").contains("written"), "{}", site.output("writer"));
    assert!(fs::read(&site.launcher.program).unwrap() == before, "the program has changed");

    // As the program of a container or an exec it is a program like any other.
    site.sandbox(&client, "itself").await;
    site.start(&client, "itself", "itself", "sleep 1000").await;
    fs::write(site.rootfs().join("bin/itself"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(site.rootfs().join("bin/itself"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for program in ["/proc/self/exe", "/bin/itself"] {
        // Refused, or run without any privilege of the monitor's; either way it ends.
        drop(exec(&client, exec_spec("itself", &[program, "--options", "{}"], None)).await);
        let mut spec = site.spec("itself", "as-program", "");
        spec.args = vec![program.into(), "--options".into(), "{}".into()];
        if client.start_container(spec).await.is_ok() {
            client.wait(container_id("as-program")).await.unwrap();
            client.remove_container(container_id("as-program")).await.unwrap();
        }
    }
    assert!(fs::read(&site.launcher.program).unwrap() == before, "the program has changed");
    site.finish(&client).await;
}

/// CVE-2024-21626: a working directory by way of a descriptor that was left open leads to the host.
#[tokio::test]
async fn a_working_directory_lies_in_the_container() {
    let site = Site::new(FILE);
    symlink("/proc/self/fd/7", site.rootfs().join("seven")).unwrap();
    let client = site.connect().await;
    site.sandbox(&client, "cwd").await;
    site.start(&client, "cwd", "cwd", "sleep 1000").await;
    let numbered = (0..24).map(|number| format!("/proc/self/fd/{number}"));
    let named =
        ["/seven", "/seven/..", "/proc/self/cwd", "/proc/self/root", "/proc/1/root/../..", "/proc/self/fd/7/../.."];
    for (index, cwd) in numbered.chain(named.map(str::to_owned)).enumerate() {
        let mut spec = site.spec("cwd", &format!("cwd-{index}"), "ls -a; pwd");
        spec.cwd = cwd.clone().into();
        let error = client.start_container(spec).await.unwrap_err();
        assert_eq!(error.kind(), Some(RefusalKind::Start), "{cwd}: {error}");
        let error = exec(&client, exec_spec("cwd", &["pwd"], Some(&cwd))).await.unwrap_err();
        assert_eq!(error.kind(), Some(RefusalKind::Start), "{cwd}: {error}");
    }
    assert_eq!(
        exec(&client, exec_spec("cwd", &["sh", "-c", "pwd"], Some("/made/for/it"))).await.unwrap(),
        "/made/for/it\n"
    );
    site.finish(&client).await;
}

/// CVE-2021-30465: a volume's destination passes a link that another volume has laid.
#[tokio::test]
async fn a_mount_lands_in_the_container_whatever_links_are_in_its_way() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "mounts").await;
    let (volume, other) = (site.dir.path().join("volume"), site.dir.path().join("other"));
    fs::create_dir(&volume).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("here"), "").unwrap();
    fs::create_dir_all(site.rootfs().join(site.dir.path().strip_prefix("/").unwrap())).unwrap();
    let up = format!("../../../../../../../..{}", site.dir.path().display());
    symlink(&up, volume.join("up")).unwrap();
    symlink("/proc/1/root", volume.join("magic")).unwrap();
    let bind = |path: &Path, destination: &str| Mount {
        destination: destination.into(),
        source: MountSource::Bind { path: path.to_owned(), sub_path: None },
        read_only: false,
        propagation: MountPropagation::Private,
    };
    let script = format!("ls {}/planted", site.dir.path().display());
    let mut spec = site.spec("mounts", "mounts", &script);
    spec.mounts = vec![bind(&volume, "/v"), bind(&other, "/v/up/planted")];
    let (exit, output) = site.run(&client, spec.clone()).await;
    assert_eq!((exit.code, output.as_str()), (0, "here\n"));
    assert!(!site.dir.path().join("planted").exists());
    spec.id = container_id("magic");
    spec.log_path = None;
    spec.mounts = vec![bind(&volume, "/v"), bind(&other, "/v/magic/planted")];
    let error = client.start_container(spec).await.unwrap_err();
    assert_eq!(error.kind(), Some(RefusalKind::Start), "{error}");
    site.finish(&client).await;
}

/// Tells a thread to end, also where the test ends early.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// CVE-2021-30465 with its race: whoever shares the volume exchanges directory and link while the mount is made.
#[tokio::test]
async fn a_mount_lands_in_the_container_while_another_exchanges_the_links_in_its_way() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "race").await;
    let (volume, other) = (site.dir.path().join("volume"), site.dir.path().join("other"));
    fs::create_dir_all(volume.join("way")).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("here"), "").unwrap();
    fs::create_dir_all(site.rootfs().join(site.dir.path().strip_prefix("/").unwrap())).unwrap();
    symlink(format!("../../../../../../../..{}", site.dir.path().display()), volume.join("up")).unwrap();
    symlink("/proc/1/root", volume.join("magic")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Stop(Arc::clone(&stop));
    let racer = std::thread::spawn({
        let (stop, directory) = (Arc::clone(&stop), File::open(&volume).unwrap());
        move || {
            let mut exchanged = 0u64;
            while !stop.load(Ordering::Relaxed) {
                for link in ["up", "magic"] {
                    // Each time something else is called `way` for a moment: a directory, or one of the links.
                    for _ in 0..2 {
                        let flags = RenameFlags::RENAME_EXCHANGE;
                        renameat2(&directory, link, &directory, "way", flags).unwrap();
                        exchanged += 1;
                    }
                }
            }
            exchanged
        }
    });
    let bind = |path: &Path, destination: &str| Mount {
        destination: destination.into(),
        source: MountSource::Bind { path: path.to_owned(), sub_path: None },
        read_only: false,
        propagation: MountPropagation::Private,
    };
    let (monitor, mut started) = (client.monitor().pid, 0);
    for number in 0..100 {
        let mut spec = site.spec("race", &format!("race-{number}"), "exit 0");
        spec.mounts = vec![bind(&volume, "/v"), bind(&other, "/v/way/planted")];
        match client.start_container(spec).await {
            Ok(status) => {
                client.wait(status.spec.id.clone()).await.unwrap();
                client.remove_container(status.spec.id).await.unwrap();
                started += 1;
            }
            // By the link that leads nowhere, and not because others rename.
            Err(error) => {
                assert_eq!(error.kind(), Some(RefusalKind::Start), "{error}");
                assert!(!error.to_string().contains("try again"), "{error}");
            }
        }
        assert!(!site.dir.path().join("planted").exists(), "round {number}");
        for who in [monitor, std::process::id()] {
            let mounts = fs::read_to_string(format!("/proc/{who}/mountinfo")).unwrap();
            assert!(!mounts.contains("/planted"), "round {number}: {mounts}");
        }
    }
    drop(stopped);
    let exchanged = racer.join().unwrap();
    assert!(started > 0 && exchanged > 100, "{started} started, {exchanged} exchanged");
    site.finish(&client).await;
}

#[tokio::test]
async fn files_of_users_that_are_none_are_refused_and_hold_nobody_up() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    site.sandbox(&client, "users").await;
    site.start(&client, "users", "users", "rm /etc/passwd; mkfifo /etc/passwd; echo made; sleep 1000").await;
    site.wait_for_output("users", "made\n").await;
    let error = exec(&client, exec_spec("users", &["true"], None)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (Some(RefusalKind::Start), "cannot read /etc/passwd: it is no regular file".into())
    );
    let passwd = site.rootfs().join("etc/passwd");
    for target in ["/proc/self/environ", "/proc/self/fd/3", "/dev/zero"] {
        fs::remove_file(&passwd).unwrap();
        symlink(target, &passwd).unwrap();
        let error = client.start_container(site.spec("users", "linked", "true")).await.unwrap_err();
        assert_eq!(error.kind(), Some(RefusalKind::Start), "{target}: {error}");
    }
    site.finish(&client).await;
}
