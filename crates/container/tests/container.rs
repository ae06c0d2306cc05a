//! Containers from the outside: what runs, what it sees, what it may do, how it ends. Needs root and busybox-static.

mod support;

use std::fs;

use knoll_container::protocol::{Capabilities, Mount, MountSource, Propagation, RefusalKind, Resources, User};
use support::{Site, container_id, sandbox_id};

const FILE: u8 = 0;

#[tokio::test]
async fn a_command_runs_and_leaves_its_exit_code_and_output() {
    let site = Site::new(FILE);
    let client = site.connect().await;
    let (exit, output) = site.script(&client, "hello", "echo out; echo err >&2; printf end; exit 7").await;
    assert_eq!((exit.code, exit.signal, exit.known, exit.oom_killed), (7, None, true, false));
    assert!(output.contains("out\n") && output.contains("stderr err\n") && output.ends_with("end\n"), "{output}");
    site.finish(&client).await;
}
