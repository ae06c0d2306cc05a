//! What a pod is confined to.

use std::path::Path;

use serde_json::{Value, json};

use super::{Failure, IMAGE, Running, Site, ready};

/// A pod has so many processes and no more; a user of its own where it asks for one; and whoever may look at everything
/// in a pod sees nothing of the machine while a probe's programs start beside it.
pub(crate) async fn confined(site: &Site, node: &Running) -> Result<(), Failure> {
    let spec = json!({"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "600"]}]});
    let mut mapped = spec.clone();
    mapped["hostUsers"] = false.into();
    let (plain, own) = (site.pod("plain", spec).await?, site.pod("own-users", mapped).await?);
    for name in ["plain", "own-users"] {
        site.until(name, "is ready", ready).await?;
    }

    let listing = site.monitor.list().await?;
    let sandbox = listing.sandboxes.iter().find(|sandbox| sandbox.spec.id.as_str() == plain).ok_or("no sandbox")?;
    let groups = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(|root| Path::new(root).join(&sandbox.cgroup));
    let limits: Vec<_> = groups.iter().filter_map(|g| std::fs::read_to_string(g.join("pids.max")).ok()).collect();
    assert_eq!(limits, ["4096\n"], "{groups:?}");

    let map = async |uid: &str| -> Result<Vec<u64>, Failure> {
        let (_, text) = node.run(uid, &["cat", "/proc/self/uid_map"]).await?;
        text.split_whitespace().map(|number| Ok(number.parse()?)).collect()
    };
    assert_eq!(map(&plain).await?, [0, 0, u64::from(u32::MAX)]);
    let own_map = map(&own).await?;
    assert!(own_map.len() == 3 && own_map[0] == 0 && own_map[1] > 0, "root is not the machine's: {own_map:?}");
    let pids = listing.containers.iter().filter(|c| c.spec.sandbox.as_str() == own).map(|c| c.pid);
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
        assert_eq!(uid, Some(own_map[1].to_string().as_str()), "as the machine sees it");
    }
    for name in ["plain", "own-users"] {
        site.delete(name).await?;
        site.until_gone(name).await?;
    }
    probed_beside_a_spy(site).await
}

/// The spy looks at every process it can see until some probes have been asked.
async fn probed_beside_a_spy(site: &Site) -> Result<(), Failure> {
    let host = site.dir.path().display();
    let spy = format!(
        r"found=0
        while [ $(cat /v/asked 2>/dev/null | busybox wc -l) -lt 4 ]; do
            for p in /proc/[0-9]*; do
                if [ -e $p/root{host} ] || [ -e $p/cwd{host} ]; then echo host; found=1; fi
                for fd in $p/fd/*; do if [ -e $fd{host} ] || [ -e $fd/state ]; then echo descriptor; found=1; fi; done
            done 2>/dev/null
        done
        exit $found"
    );
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let spec = json!({"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "shareProcessNamespace": true,
        "volumes": [{"name": "v", "emptyDir": {}}], "containers": [
            {"name": "spy", "image": IMAGE, "command": ["sh", "-c", spy], "volumeMounts": mount,
                "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}},
            {"name": "probed", "image": IMAGE, "command": ["sleep", "600"], "volumeMounts": mount,
                "readinessProbe": {"exec": {"command": ["sh", "-c", "echo asked >> /v/asked"]}, "periodSeconds": 1}}]});
    site.pod("spied", spec).await?;
    let spy = |pod: &Value| {
        let statuses = pod["status"]["containerStatuses"].as_array();
        let spy = statuses.into_iter().flatten().find(|status| status["name"] == "spy");
        spy.map_or(Value::Null, |spy| spy["state"]["terminated"]["exitCode"].clone())
    };
    let pod = site.until("spied", "is spied on", |pod| spy(pod).is_number()).await?;
    assert_eq!(spy(&pod), 0, "it saw something of the machine");
    site.delete("spied").await?;
    site.until_gone("spied").await
}
