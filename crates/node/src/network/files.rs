//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a pod.

use std::fmt::Write;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;

/// Most bytes of a host name.
const LONGEST_HOSTNAME: usize = 63;
/// Most search domains that resolvers take.
const MOST_SEARCHES: usize = 32;
/// Most servers that resolvers take.
const MOST_SERVERS: usize = 3;

/// A resolver's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolv {
    /// Servers, in the order they are asked.
    pub servers: Vec<String>,
    /// Domains appended to short names.
    pub searches: Vec<String>,
    /// Options as they stand.
    pub options: Vec<String>,
}

impl Resolv {
    /// Reads a `resolv.conf`.
    pub fn parse(text: &str) -> Resolv {
        let mut out = Resolv::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => out.searches = words.map(str::to_owned).collect(),
                Some("options") => out.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        out
    }

    /// Writes a `resolv.conf`.
    pub fn render(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            out += &format!("search {}\n", self.searches.join(" "));
        }
        for server in &self.servers {
            out += &format!("nameserver {server}\n");
        }
        if !self.options.is_empty() {
            out += &format!("options {}\n", self.options.join(" "));
        }
        out
    }
}

/// What a pod's `hostname` prints.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|s| s.hostname.as_deref()).filter(|h| !h.is_empty()).or(pod.metadata.name.as_deref());
    let name = name.unwrap_or_default();
    name[..name.floor_char_boundary(LONGEST_HOSTNAME)].trim_end_matches(['-', '.']).to_owned()
}

/// A pod's `/etc/hosts`.
pub fn hosts(pod: &Pod, address: Option<Ipv4Addr>, cluster_domain: &str) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let name = hostname(pod);
    let spec = pod.spec.as_ref();
    if let Some(address) = address {
        match spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty()) {
            Some(subdomain) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                out += &format!("{address}\t{name}.{subdomain}.{namespace}.svc.{cluster_domain}\t{name}\n");
            }
            None => out += &format!("{address}\t{name}\n"),
        }
    }
    let aliases = spec.and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        out += "\n# Entries added by HostAliases.\n";
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            writeln!(out, "{}\t{names}", alias.ip).expect("writing to a string cannot fail");
        }
    }
    out
}

/// A pod's resolver configuration. `host` is the machine's own; `dns` is where the cluster's server listens.
pub fn resolv(pod: &Pod, host: &Resolv, dns: Option<Ipv4Addr>, cluster_domain: &str) -> Resolv {
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let cluster_first = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !host_network);
    let mut out = match (policy, dns) {
        ("None", _) => Resolv::default(),
        (_, Some(dns)) if cluster_first => {
            let ours = [
                format!("{namespace}.svc.{cluster_domain}"),
                format!("svc.{cluster_domain}"),
                cluster_domain.to_owned(),
            ];
            let searches = ours.into_iter().chain(host.searches.iter().filter(|s| *s != ".").cloned()).collect();
            Resolv { servers: vec![dns.to_string()], searches, options: vec!["ndots:5".into()] }
        }
        // A stub on the machine's loopback cannot be reached from a pod; our server asks it instead.
        (_, Some(dns)) if !host_network && host.servers.iter().any(|s| s.starts_with("127.") || s == "::1") => {
            Resolv { servers: vec![dns.to_string()], ..host.clone() }
        }
        _ => host.clone(),
    };
    if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
        append(&mut out.servers, own.nameservers.iter().flatten().cloned());
        append(&mut out.searches, own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            out.options.retain(|o| o.split(':').next() != Some(name));
            out.options.push(option.value.as_ref().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")));
        }
    }
    out.servers.truncate(MOST_SERVERS);
    out.searches.truncate(MOST_SEARCHES);
    out
}

fn append(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})).expect("a pod")
    }

    fn rendered(spec: Value, host: &str) -> String {
        let dns = Some(Ipv4Addr::new(169, 254, 77, 1));
        resolv(&pod(spec), &Resolv::parse(host), dns, "cluster.local").render()
    }

    const HOST: &str = "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch home.lan\n";

    #[test]
    fn the_cluster_comes_first() {
        assert_eq!(
            rendered(json!({"containers": []}), HOST),
            "search ns.svc.cluster.local svc.cluster.local cluster.local home.lan\nnameserver 169.254.77.1\noptions ndots:5\n"
        );
    }

    #[test]
    fn the_machines_stub_is_reached_through_us() {
        let spec = json!({"containers": [], "dnsPolicy": "Default"});
        assert_eq!(rendered(spec.clone(), HOST), "search home.lan\nnameserver 169.254.77.1\noptions edns0\n");
        assert_eq!(rendered(spec, "nameserver 192.0.2.53\n"), "nameserver 192.0.2.53\n");
        let own = json!({"containers": [], "hostNetwork": true});
        assert_eq!(rendered(own, HOST), "search home.lan\nnameserver 127.0.0.53\noptions edns0\n");
    }

    #[test]
    fn a_pods_own_wishes_are_added() {
        let spec = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"],
            "searches": ["x.test"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(rendered(spec, HOST), "search x.test\nnameserver 192.0.2.9\noptions ndots:2 edns0\n");
        let spec = json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}});
        assert!(rendered(spec, "").ends_with("options ndots:1\n"));
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let spec = json!({"containers": [], "hostname": "h", "subdomain": "s",
            "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a.test", "b.test"]}]});
        let text = hosts(&pod(spec), Some(Ipv4Addr::new(10, 244, 0, 5)), "cluster.local");
        assert!(text.contains("10.244.0.5\th.s.ns.svc.cluster.local\th\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n192.0.2.7\ta.test\tb.test\n"), "{text}");
    }

    #[test]
    fn long_names_are_cut() {
        let mut pod = pod(json!({"containers": []}));
        pod.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(40)));
        assert_eq!(hostname(&pod), "a".repeat(62));
    }

    #[test]
    fn a_name_is_never_cut_within_a_letter() {
        let named = pod(json!({"containers": [], "hostname": "é".repeat(40)}));
        assert_eq!(hostname(&named), "é".repeat(31));
        assert!(hosts(&named, Some(Ipv4Addr::LOCALHOST), "cluster.local").contains(&"é".repeat(31)));
    }
}
