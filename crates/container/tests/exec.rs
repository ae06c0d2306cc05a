//! Further programs in running containers. Needs root and busybox-static.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use knoll_container::client::{Client, ExecPipes, set_terminal_size};
use knoll_container::protocol::{ContainerSpec, ExecSpec, ExitStatus, RefusalKind, User};
use support::{Site, container_id};

const FILE: u8 = 3;

fn spec(container: &str, script: &str) -> ExecSpec {
    ExecSpec {
        container: container_id(container),
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![],
        cwd: None,
        user: None,
        tty: false,
        start_timeout_ms: None,
    }
}

fn pipe() -> (File, OwnedFd) {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (File::from(read), write)
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// Runs to the end and gives exit, stdout and stderr.
async fn run(client: &Client, spec: ExecSpec, input: &str) -> (ExitStatus, String, String) {
    let (stdin, mut to_program) = pipe();
    let ((mut output, stdout), (mut errors, stderr)) = (pipe(), pipe());
    let mut writer = File::from(std::mem::replace(&mut to_program, null()));
    writer.write_all(input.as_bytes()).unwrap();
    drop(writer);
    let pipes = ExecPipes { stdin: stdin.into(), stdout, stderr };
    let exec = client.exec(spec, pipes).await.unwrap();
    let exit = exec.wait().await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    output.read_to_string(&mut out).unwrap();
    errors.read_to_string(&mut err).unwrap();
    (exit, out, err)
}

async fn running(site: &Site, change: impl FnOnce(&mut ContainerSpec)) -> Client {
    let client = site.connect().await;
    site.sandbox(&client, "box").await;
    let mut spec = site.spec("box", "box", "echo up; sleep 1000");
    spec.env = vec!["GREETING=hello".into()];
    spec.cwd = "/tmp".into();
    change(&mut spec);
    client.start_container(spec).await.unwrap();
    client
}

#[tokio::test]
async fn streams_and_the_exit_code_come_back() {
    let site = Site::new(FILE);
    let client = running(&site, |_| {}).await;
    let script = "cat; echo $GREETING; pwd; hostname; ps | grep -c '[s]leep 1000$'; echo bad >&2; exit 6";
    let (exit, out, err) = run(&client, spec("box", script), "input\n").await;
    assert_eq!((exit.code, exit.signal), (6, None));
    assert_eq!((out.as_str(), err.as_str()), ("input\nhello\n/tmp\nbox\n1\n", "bad\n"));
    site.finish(&client).await;
}

#[tokio::test]
async fn an_exec_is_confined_like_its_container() {
    let site = Site::new(FILE);
    let change = |spec: &mut ContainerSpec| {
        spec.security.user = User::uid(1000);
        spec.oom_score_adj = Some(500);
    };
    let client = running(&site, change).await;
    let script = "id -u; awk '/^Seccomp:|^NoNewPrivs:|^CapBnd:/ { print $2 }' /proc/self/status; mount -t tmpfs x /tmp 2>/dev/null || echo denied";
    let (_, out, _) = run(&client, spec("box", script), "").await;
    assert_eq!(out, "1000\n00000000a80425fb\n1\n2\ndenied\n");
    let score = run(&client, spec("box", "cat /proc/1/oom_score_adj /proc/self/oom_score_adj"), "").await.1;
    assert_eq!(score, "500\n500\n");
    let mut root = spec("box", "id -u; echo $EXTRA");
    root.user = Some(User::uid(0));
    root.env = vec!["EXTRA=more".into()];
    assert_eq!(run(&client, root, "").await.1, "0\nmore\n");
    site.finish(&client).await;
}

#[tokio::test]
async fn a_terminal_is_one() {
    let site = Site::new(FILE);
    let client = running(&site, |_| {}).await;
    let spec = spec("box", "tty; read line; echo got $line; test -t 1 && echo terminal");
    let (exec, terminal) = client.exec_tty(spec).await.unwrap();
    set_terminal_size(&terminal, 40, 120).unwrap();
    let mut terminal = File::from(terminal);
    terminal.write_all(b"something\n").unwrap();
    assert_eq!(exec.wait().await.unwrap().code, 0);
    let mut out = Vec::new();
    let mut buffer = [0; 1024];
    // The kernel ends a terminal whose other side is gone with an error, after everything has been read.
    while let Ok(length @ 1..) = terminal.read(&mut buffer) {
        out.extend_from_slice(&buffer[..length]);
    }
    let out = String::from_utf8(out).unwrap().replace('\r', "");
    assert!(out.contains("/dev/pts/0\n") && out.contains("got something\nterminal\n"), "{out}");
    site.finish(&client).await;
}

#[tokio::test]
async fn an_exec_can_be_signalled_and_refused() {
    let site = Site::new(FILE);
    let client = running(&site, |_| {}).await;
    let ((mut output, stdout), stderr) = (pipe(), null());
    let pipes = ExecPipes { stdin: null(), stdout, stderr };
    let exec = client.exec(spec("box", "echo ready; exec sleep 1000"), pipes).await.unwrap();
    let mut ready = [0; 6];
    output.read_exact(&mut ready).unwrap();
    exec.signal(9).await.unwrap();
    let exit = exec.wait().await.unwrap();
    assert_eq!((exit.code, exit.signal), (137, Some(9)));

    let nothing = || ExecPipes { stdin: null(), stdout: null(), stderr: null() };
    let mut missing = spec("box", "");
    missing.args = vec!["/nope".into()];
    let error = client.exec(missing, nothing()).await.err().unwrap();
    assert_eq!(error.kind(), Some(RefusalKind::Start));
    assert_eq!(error.to_string(), "exec: \"/nope\": stat /nope: no such file or directory");
    let error = client.exec(spec("nobody", "true"), nothing()).await.err().unwrap();
    assert_eq!(error.kind(), Some(RefusalKind::NotFound));
    client.kill(container_id("box")).await.unwrap();
    client.wait(container_id("box")).await.unwrap();
    let error = client.exec(spec("box", "true"), nothing()).await.err().unwrap();
    assert_eq!(error.kind(), Some(RefusalKind::State));
    site.finish(&client).await;
}
