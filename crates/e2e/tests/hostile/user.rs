//! A local user, and a web page that such a user has open.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use knoll_e2e::{Namespace, get, request};

use crate::{Watchman, as_nobody};

/// What `find` can read below a directory, as nobody.
fn readable(root: &Path) -> String {
    let output = as_nobody("find").arg(root).args(["-mindepth", "1"]).output().expect("find runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The sockets below a directory, as root sees them.
fn sockets(root: &Path) -> Vec<PathBuf> {
    let output = Command::new("find").arg(root).args(["-type", "s"]).output().expect("find runs");
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

#[test]
fn nothing_of_the_instance_can_be_read() {
    let space = Namespace::new("user");
    let _watchman = Watchman::new(&space);
    space.kubectl(&["create", "secret", "generic", "keys", "--from-literal=word=s3cret"]);
    space.actor();
    for root in [space.cluster.data_dir.as_path(), Path::new("/run/knoll")] {
        assert_eq!(readable(root), "", "{} is open", root.display());
        let mode = fs::metadata(root).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", root.display());
    }
}

#[test]
fn no_socket_of_the_machine_takes_orders_without_credentials() {
    let space = Namespace::new("orders");
    let _watchman = Watchman::new(&space);
    let registry = space.cluster.instance()["registry"].as_str().expect("it has one").to_owned();
    let refused = |method: &str, path: &str, host: &str, headers: &[(&str, &str)]| {
        let answer = request(&registry, host, method, path, headers, "x").expect("it answers");
        assert!((400..500).contains(&answer.status), "{method} {path} for {host}: {}", answer.status);
    };
    refused("POST", "/knoll/images", &registry, &[]);
    refused("POST", "/v2/e2e/actor/blobs/uploads/", &registry, &[]);
    refused("PUT", "/v2/e2e/actor/manifests/1", &registry, &[]);
    refused("DELETE", "/v2/e2e/actor/manifests/1", &registry, &[]);
    refused("POST", "/v2/e2e/actor/blobs/uploads/", &registry, &[("authorization", "Basic a25vbGw6d3Jvbmc=")]);
    // A web page whose name was made to lead here.
    let answer = get(&registry, "evil.example", "/v2/").expect("it answers");
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    let api = space.cluster.instance()["api"].as_str().expect("it has one").to_owned();
    let secrets = format!("{api}/api/v1/secrets");
    let answer = as_nobody("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", &secrets]).output();
    let code = answer.expect("curl runs").stdout;
    assert!(["401", "403"].contains(&String::from_utf8_lossy(&code).as_ref()));
    let sockets = sockets(Path::new("/run/knoll"));
    assert!(sockets.len() >= 3, "of the monitor, of the admin endpoint, of images: {sockets:?}");
    for socket in sockets {
        let output = as_nobody("curl").arg("-s").arg("--unix-socket").arg(&socket).arg("http://knoll/metrics").output();
        assert!(!output.expect("curl runs").status.success(), "{} is open", socket.display());
    }
    let lock = as_nobody("flock").args(["-n", "/run/knoll/lock", "true"]).output().expect("flock runs");
    assert!(!lock.status.success(), "anybody can hold the lock");
}
