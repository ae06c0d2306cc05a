//! Where users may lead traffic: not to the machine itself.

use std::{
    io,
    sync::{Arc, Mutex, mpsc},
};

use crate::support::{Answer, Harness, config_map};
use knoll_apiserver::UserInfo;
use serde_json::{Value, json};

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn endpoints(name: &str, ip: &str) -> Value {
    json!({"metadata": {"name": name}, "subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 80}]}]})
}

fn slice(name: &str, ip: &str) -> Value {
    json!({"metadata": {"name": name}, "addressType": "IPv4", "endpoints": [{"addresses": [ip]}], "ports": [{"port": 80}]})
}

fn service(name: &str, ips: &[&str], port: u16) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": port}], "externalIPs": ips}})
}

/// Somebody who writes what they like in the namespace, and is not trusted with the machine.
async fn tenant(h: &Harness) -> UserInfo {
    let rules = json!([
        {"apiGroups": [""], "resources": ["endpoints", "services"], "verbs": ["*"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["*"]},
    ]);
    let group = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    h.post(&format!("{group}/roles"), json!({"metadata": {"name": "tenant"}, "rules": rules})).await.expect(201);
    let binding = json!({
        "metadata": {"name": "tenant"}, "roleRef": {"kind": "Role", "name": "tenant"},
        "subjects": [{"kind": "User", "name": "tenant"}],
    });
    h.post(&format!("{group}/rolebindings"), binding).await.expect(201);
    UserInfo::new("tenant", &["system:authenticated"])
}

async fn post(h: &Harness, who: &UserInfo, path: &str, body: Value) -> Answer {
    h.send_as(who.clone(), "POST", path, "application/json", body).await
}

#[tokio::test]
async fn endpoints_lead_to_no_loopback_link_or_crowd() {
    let h = Harness::new().await;
    for (ip, why) in [
        ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
        ("169.254.169.254", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("224.0.0.5", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ("239.1.1.1", "may not be a multicast address"),
        ("localhost", "must be a valid IP address"),
    ] {
        // Not even for the administrator: nothing good comes of it.
        let message = h.post(ENDPOINTS, endpoints("e", ip)).await.failure(422);
        let start = format!("Endpoints \"e\" is invalid: subsets[0].addresses[0].ip: Invalid value: \"{ip}\": {why}");
        assert!(message.starts_with(&start), "{message}");
        let message = h.post(SLICES, slice("s", ip)).await.failure(422);
        assert!(message.contains(&format!("endpoints[0].addresses[0]: Invalid value: \"{ip}\": {why}")), "{message}");
    }
    h.post(ENDPOINTS, endpoints("e", "10.1.2.3")).await.expect(201);
    h.post(SLICES, slice("s", "10.1.2.3")).await.expect(201);
    let change = json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 80}]}]});
    h.send("PATCH", &format!("{ENDPOINTS}/e"), change).await.expect(422);
}

#[tokio::test]
async fn only_the_trusted_lead_traffic_to_the_machine_and_its_gateway() {
    let h = Harness::new().await;
    let tenant = tenant(&h).await;
    // 192.0.2.1 is the machine's, 169.254.77.1 the gateway's.
    for ip in ["192.0.2.1", "169.254.77.1"] {
        for (path, object) in [(ENDPOINTS, endpoints("e", ip)), (SLICES, slice("s", ip))] {
            let message = post(&h, &tenant, path, object).await.failure(422);
            assert!(message.ends_with("may not be an address of the node itself"), "{message}");
        }
    }
    let controller = UserInfo::service_account("knative-serving", "controller");
    post(&h, &controller, ENDPOINTS, endpoints("e", "169.254.77.1")).await.expect(201);
    post(&h, &controller, SLICES, slice("s", "169.254.77.1")).await.expect(201);
    // What the trusted made, others may label: the addresses are not theirs.
    let path = format!("{ENDPOINTS}/e");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    h.send_as(tenant, "PATCH", &path, "application/merge-patch+json", label).await.expect(200);
}

#[tokio::test]
async fn external_addresses_belong_to_one_service_and_never_to_the_machine() {
    let h = Harness::new().await;
    let tenant = tenant(&h).await;
    let message = post(&h, &tenant, SERVICES, service("s", &["198.51.100.1"], 80)).await.failure(422);
    assert!(message.contains("Use of external IPs is denied"), "{message}");
    for (ip, why) in [
        ("127.0.0.1", "loopback"),
        ("192.0.2.1", "may not be an address of the node itself"),
        ("169.254.77.1", "link-local"),
        ("10.96.0.1", "may not be in the range of cluster IPs"),
        ("10.244.0.7", "may not be in the range of pods"),
    ] {
        let message = h.post(SERVICES, service("s", &[ip], 80)).await.failure(422);
        assert!(message.contains("spec.externalIPs[0]: Invalid value") && message.contains(why), "{message}");
    }
    h.post(SERVICES, service("one", &["198.51.100.1"], 80)).await.expect(201);
    let message = h.post(SERVICES, service("two", &["198.51.100.2", "198.51.100.1"], 80)).await.failure(422);
    assert_eq!(
        message,
        "Service \"two\" is invalid: spec.externalIPs[1]: Invalid value: \"198.51.100.1\": \
         port 80/TCP of this address is already another Service's"
    );
    h.post(SERVICES, service("two", &["198.51.100.1"], 81)).await.expect(201);
    let moved = json!({"spec": {"ports": [{"port": 80}]}});
    h.send("PATCH", &format!("{SERVICES}/two"), moved.clone()).await.expect(422);
    h.send("DELETE", &format!("{SERVICES}/one"), Value::Null).await.expect(200);
    h.send("PATCH", &format!("{SERVICES}/two"), moved).await.expect(200);
}

#[tokio::test]
async fn services_are_checked_as_kubernetes_checks_them() {
    let h = Harness::new().await;
    for (spec, why) in [
        (json!({"type": "ExternalName", "externalName": "a_b"}), "spec.externalName: Invalid value"),
        (json!({"ports": [{"port": 80, "protocol": "QUIC"}]}), "spec.ports[0].protocol: Unsupported value"),
        (json!({"ports": [{"port": 80, "targetPort": 70000}]}), "spec.ports[0].targetPort: Invalid value"),
        (json!({"ports": [{"port": 80, "nodePort": 30000}]}), "may not be used when `type` is 'ClusterIP'"),
        (json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}), "may not be set to 'None'"),
        (json!({"ports": [{"port": 80}], "sessionAffinity": "Sticky"}), "spec.sessionAffinity: Unsupported value"),
        (
            json!({"ports": [{"port": 80}], "ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ),
        (
            json!({"ports": [{"port": 80}], "ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (
            json!({"ports": [{"port": 80}], "ipFamilies": ["IPv4", "IPX"]}),
            "spec.ipFamilies[1]: Unsupported value: \"IPX\": supported values: \"IPv4\", \"IPv6\"",
        ),
        (
            json!({"type": "LoadBalancer", "ports": [{"port": 80}], "loadBalancerSourceRanges": ["10.0.0.0/33"]}),
            "must be a valid CIDR value",
        ),
    ] {
        let message = h.post(SERVICES, json!({"metadata": {"name": "s"}, "spec": spec})).await.failure(422);
        assert!(message.contains(why), "{message}");
    }
    // Whoever would like both versions gets what there is; and what others answer for is theirs to say.
    let wishes = json!({"ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]});
    let made = h.post(SERVICES, json!({"metadata": {"name": "s"}, "spec": wishes})).await.expect(201);
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    let theirs = json!({"clusterIP": "None", "ipFamilies": ["IPv6"], "ports": [{"port": 80}]});
    h.post(SERVICES, json!({"metadata": {"name": "headless"}, "spec": theirs})).await.expect(201);
}

#[tokio::test]
async fn what_has_to_wait_for_the_machine_holds_up_nobody_else() {
    let (told, asked) = tokio::sync::mpsc::unbounded_channel();
    let (answer, answers) = mpsc::channel();
    let (asked, answers) = (Mutex::new(asked), Mutex::new(answers));
    let machine = move || {
        told.send(()).unwrap();
        answers.lock().unwrap().recv().unwrap()
    };
    let h = Arc::new(Harness::with_machine(Arc::new(machine)).await);
    let tenant = tenant(&h).await;
    let writing = {
        let (h, tenant) = (h.clone(), tenant.clone());
        tokio::spawn(async move { post(&h, &tenant, SLICES, slice("s", "192.0.2.1")).await })
    };
    let mut asked = asked.into_inner().unwrap();
    asked.recv().await.unwrap();
    // One thread runs everything here: it answers others meanwhile, of the same kind, too.
    h.post("/api/v1/namespaces/default/configmaps", config_map("c", json!({}))).await.expect(201);
    h.post(SLICES, slice("mine", "10.1.1.1")).await.expect(201);
    assert!(!writing.is_finished());
    answer.send(Ok(vec!["192.0.2.1".parse().unwrap()])).unwrap();
    let message = writing.await.unwrap().failure(422);
    assert!(message.contains("may not be an address of the node itself"), "{message}");
}

#[tokio::test]
async fn where_the_machine_does_not_tell_its_addresses_only_who_may_leads_traffic_anywhere() {
    let h = Harness::with_machine(Arc::new(|| Err(io::Error::other("too many open files")))).await;
    let tenant = tenant(&h).await;
    for (path, object) in [(ENDPOINTS, endpoints("e", "10.1.1.1")), (SLICES, slice("s", "10.1.1.1"))] {
        let message = post(&h, &tenant, path, object.clone()).await.failure(500);
        assert!(message.contains("list the machine's own addresses: too many open files"), "{message}");
        h.post(path, object).await.expect(201);
    }
}
