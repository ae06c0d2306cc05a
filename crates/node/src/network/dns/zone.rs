//! What names inside the cluster stand for. Pure.

use std::net::Ipv4Addr;
use std::sync::Arc;

use imbl::OrdMap;
use knoll_api::Key;

use super::packet::{Answer, Record, RecordData, code, kind};

/// How long answers hold, seconds: short, because instances come and go.
const TTL: u32 = 5;
/// Most aliases followed.
const MOST_ALIASES: usize = 8;

/// Everything that has a name. A copy shares what does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Services by namespace and name.
    pub services: OrdMap<Key, Arc<ServiceNames>>,
}

/// What a Service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceNames {
    /// One address.
    Address {
        /// The address.
        address: Ipv4Addr,
        /// Name, protocol in lower case and number of its ports.
        ports: Vec<(String, String, u16)>,
    },
    /// Its endpoints.
    Headless {
        /// Host name, where one is set, and address.
        members: Vec<(Option<String>, Ipv4Addr)>,
        /// Name, protocol in lower case and number of its ports.
        ports: Vec<(String, String, u16)>,
    },
    /// Another name.
    Alias(String),
}

/// What is needed to answer.
pub struct Zone<'a> {
    /// The cluster's suffix.
    pub domain: &'a str,
    /// What has a name.
    pub names: &'a Names,
    /// Where the machine's gateway is.
    pub gateway: Ipv4Addr,
    /// Whether the gateway answers for a host name, on behalf of a namespace.
    pub gateway_serves: &'a dyn Fn(&str, &str) -> bool,
    /// Whether an address belongs to a pod of a namespace.
    pub pod_is_in: &'a dyn Fn(Ipv4Addr, &str) -> bool,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered here.
    Answered(Answer),
    /// Others must be asked.
    Foreign,
    /// Answered here up to an alias that others know.
    Alias {
        /// The aliases.
        answer: Answer,
        /// The name to ask others for.
        target: String,
    },
}

/// What a name is.
enum Found {
    Addresses(Vec<Ipv4Addr>),
    Alias(String),
    Hosts(Vec<(u16, String, Ipv4Addr)>),
    /// It exists, but as a part of longer names only.
    Bare,
}

impl Zone<'_> {
    /// Answers a question for a lower-case name without last dot.
    pub fn answer(&self, name: &str, wanted: u16) -> Outcome {
        let mut answer = Answer::default();
        let mut at = name.to_owned();
        for _ in 0..MOST_ALIASES {
            let owner = if answer.answers.is_empty() { String::new() } else { at.clone() };
            let Some(inside) = self.inside(&at) else {
                return match answer.answers.is_empty() {
                    true => Outcome::Foreign,
                    false => Outcome::Alias { answer, target: at },
                };
            };
            match self.find(inside) {
                None => {
                    answer.code = code::NO_NAME;
                    return Outcome::Answered(self.finish(answer));
                }
                Some(Found::Bare) => return Outcome::Answered(self.finish(answer)),
                Some(Found::Addresses(list)) => {
                    self.push_addresses(&mut answer, owner, &list, wanted);
                    return Outcome::Answered(self.finish(answer));
                }
                Some(Found::Hosts(hosts)) => {
                    if matches!(wanted, kind::SRV | kind::ANY) {
                        for (port, target, address) in hosts {
                            let record = |name, data| Record { name, ttl: TTL, data };
                            answer
                                .answers
                                .push(record(owner.clone(), RecordData::Srv { port, target: target.clone() }));
                            answer.additional.push(record(target, RecordData::A(address)));
                        }
                    }
                    return Outcome::Answered(self.finish(answer));
                }
                Some(Found::Alias(target)) => {
                    let record = Record { name: owner, ttl: TTL, data: RecordData::Cname(target.clone()) };
                    answer.answers.push(record);
                    if wanted == kind::CNAME {
                        return Outcome::Answered(answer);
                    }
                    at = target;
                }
            }
        }
        answer.code = code::FAILURE;
        Outcome::Answered(answer)
    }

    /// The labels before the cluster's suffix.
    fn inside<'n>(&self, name: &'n str) -> Option<&'n str> {
        if name == self.domain {
            return Some("");
        }
        name.strip_suffix(self.domain)?.strip_suffix('.')
    }

    fn find(&self, inside: &str) -> Option<Found> {
        let labels: Vec<&str> = inside.rsplit('.').collect();
        match labels[..] {
            [""] | ["svc"] | ["pod"] => Some(Found::Bare),
            ["svc", namespace] => self.namespace_exists(namespace).then_some(Found::Bare),
            ["pod", _] => Some(Found::Bare),
            ["pod", namespace, dashed] => {
                let address = dashed.replace('-', ".").parse().ok().filter(|ip| (self.pod_is_in)(*ip, namespace))?;
                Some(Found::Addresses(vec![address]))
            }
            // The gateway stands before a Service of that name in that namespace, never before another's.
            ["svc", namespace, service]
                if (self.gateway_serves)(&format!("{service}.{namespace}.svc.{}", self.domain), namespace) =>
            {
                Some(Found::Addresses(vec![self.gateway]))
            }
            ["svc", namespace, service] => Some(match self.service(namespace, service)? {
                ServiceNames::Address { address, .. } => Found::Addresses(vec![*address]),
                ServiceNames::Headless { members, .. } => {
                    let mut list: Vec<_> = members.iter().map(|(_, ip)| *ip).collect();
                    list.dedup();
                    Found::Addresses(list)
                }
                ServiceNames::Alias(target) => Found::Alias(target.clone()),
            }),
            ["svc", namespace, service, protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
                self.hosts(namespace, service, protocol.strip_prefix('_')?, port.strip_prefix('_')?)
            }
            ["svc", namespace, service, member] => {
                let ServiceNames::Headless { members, .. } = self.service(namespace, service)? else { return None };
                let list: Vec<_> = members.iter().filter(|m| member_name(m) == member).map(|(_, ip)| *ip).collect();
                (!list.is_empty()).then_some(Found::Addresses(list))
            }
            _ => None,
        }
    }

    fn hosts(&self, namespace: &str, service: &str, protocol: &str, port: &str) -> Option<Found> {
        let base = format!("{service}.{namespace}.svc.{}", self.domain);
        let number = |ports: &[(String, String, u16)]| {
            ports.iter().find(|(name, p, _)| name == port && p == protocol).map(|(_, _, number)| *number)
        };
        match self.service(namespace, service)? {
            ServiceNames::Address { address, ports } => Some(Found::Hosts(vec![(number(ports)?, base, *address)])),
            ServiceNames::Headless { members, ports } => {
                let port = number(ports)?;
                let host = |m: &(Option<String>, Ipv4Addr)| (port, format!("{}.{base}", member_name(m)), m.1);
                Some(Found::Hosts(members.iter().map(host).collect()))
            }
            ServiceNames::Alias(_) => None,
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&ServiceNames> {
        self.names.services.get(&Key::new(namespace, name)).map(Arc::as_ref)
    }

    fn namespace_exists(&self, namespace: &str) -> bool {
        let first = Key::new(namespace, "");
        self.names.services.range(first..).next().is_some_and(|(key, _)| key.namespace == namespace)
    }

    fn push_addresses(&self, answer: &mut Answer, name: String, list: &[Ipv4Addr], wanted: u16) {
        if matches!(wanted, kind::A | kind::ANY) {
            let record = |ip: &Ipv4Addr| Record { name: name.clone(), ttl: TTL, data: RecordData::A(*ip) };
            answer.answers.extend(list.iter().map(record));
        }
    }

    /// A "no" says how long it holds.
    fn finish(&self, mut answer: Answer) -> Answer {
        if answer.answers.is_empty() {
            let data = RecordData::Soa { zone: self.domain.to_owned(), minimum: TTL };
            answer.authority.push(Record { name: self.domain.to_owned(), ttl: TTL, data });
        }
        answer
    }
}

/// What an endpoint is called within its Service.
fn member_name((name, address): &(Option<String>, Ipv4Addr)) -> String {
    name.clone().unwrap_or_else(|| address.to_string().replace('.', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn names() -> Names {
        let ports = || vec![("http".to_owned(), "tcp".to_owned(), 80)];
        let alias = |target: &str| ServiceNames::Alias(target.into());
        let services = [
            ("a", ServiceNames::Address { address: ip(1), ports: ports() }),
            ("h", ServiceNames::Headless { members: vec![(Some("m".into()), ip(2)), (None, ip(3))], ports: ports() }),
            ("x", alias("a.ns.svc.cluster.local")),
            ("out", alias("example.com")),
            ("loop", alias("loop.ns.svc.cluster.local")),
        ];
        Names { services: services.into_iter().map(|(name, s)| (Key::new("ns", name), Arc::new(s))).collect() }
    }

    fn ask(name: &str, wanted: u16) -> String {
        let names = names();
        // Somebody in `ns` has the gateway serve more than is theirs.
        let theirs = [
            "app.ns.svc.cluster.local",
            "app.example.com",
            "app.victim.svc.cluster.local",
            "kubernetes.default.svc.cluster.local",
        ];
        let serves = |host: &str, namespace: &str| namespace == "ns" && theirs.contains(&host);
        let zone = Zone {
            domain: "cluster.local",
            names: &names,
            gateway: ip(254),
            gateway_serves: &serves,
            pod_is_in: &|address, namespace| address == ip(9) && namespace == "ns",
        };
        let show = |answer: &Answer| {
            let list: Vec<_> = answer
                .answers
                .iter()
                .map(|r| match &r.data {
                    RecordData::A(ip) => format!("{}:{ip}", r.name),
                    RecordData::Cname(to) => format!("{}->{to}", r.name),
                    RecordData::Srv { port, target } => format!("{target}:{port}"),
                    other => format!("{other:?}"),
                })
                .collect();
            format!("{} [{}] soa={}", answer.code, list.join(" "), answer.authority.len())
        };
        match zone.answer(name, wanted) {
            Outcome::Answered(answer) => show(&answer),
            Outcome::Foreign => "foreign".into(),
            Outcome::Alias { answer, target } => format!("{} then {target}", show(&answer)),
        }
    }

    #[test]
    fn services_have_addresses() {
        assert_eq!(ask("a.ns.svc.cluster.local", kind::A), "0 [:10.0.0.1] soa=0");
        assert_eq!(ask("h.ns.svc.cluster.local", kind::A), "0 [:10.0.0.2 :10.0.0.3] soa=0");
        assert_eq!(ask("m.h.ns.svc.cluster.local", kind::A), "0 [:10.0.0.2] soa=0");
        assert_eq!(ask("10-0-0-3.h.ns.svc.cluster.local", kind::A), "0 [:10.0.0.3] soa=0");
        assert_eq!(ask("10-0-0-9.ns.pod.cluster.local", kind::A), "0 [:10.0.0.9] soa=0");
    }

    #[test]
    fn the_gateway_answers_for_what_it_serves() {
        assert_eq!(ask("app.ns.svc.cluster.local", kind::A), "0 [:10.0.0.254] soa=0");
    }

    #[test]
    fn nobody_answers_for_the_names_of_others() {
        assert_eq!(ask("app.example.com", kind::A), "foreign");
        assert_eq!(ask("app.victim.svc.cluster.local", kind::A), "3 [] soa=1");
        assert_eq!(ask("kubernetes.default.svc.cluster.local", kind::A), "3 [] soa=1");
        assert_eq!(ask("10-0-0-9.victim.pod.cluster.local", kind::A), "3 [] soa=1");
        assert_eq!(ask("10-0-0-8.ns.pod.cluster.local", kind::A), "3 [] soa=1");
    }

    #[test]
    fn names_without_that_record_are_not_unknown() {
        assert_eq!(ask("a.ns.svc.cluster.local", kind::AAAA), "0 [] soa=1");
        assert_eq!(ask("app.ns.svc.cluster.local", kind::AAAA), "0 [] soa=1");
        assert_eq!(ask("ns.svc.cluster.local", kind::A), "0 [] soa=1");
        assert_eq!(ask("cluster.local", kind::A), "0 [] soa=1");
    }

    #[test]
    fn unknown_names_inside_are_unknown_and_others_foreign() {
        assert_eq!(ask("no.ns.svc.cluster.local", kind::A), "3 [] soa=1");
        assert_eq!(ask("a.no.svc.cluster.local", kind::A), "3 [] soa=1");
        assert_eq!(ask("example.com.ns.svc.cluster.local", kind::A), "3 [] soa=1");
        assert_eq!(ask("notcluster.local", kind::A), "foreign");
    }

    #[test]
    fn aliases_are_followed_as_far_as_we_know() {
        assert_eq!(
            ask("x.ns.svc.cluster.local", kind::A),
            "0 [->a.ns.svc.cluster.local a.ns.svc.cluster.local:10.0.0.1] soa=0"
        );
        assert_eq!(ask("out.ns.svc.cluster.local", kind::A), "0 [->example.com] soa=0 then example.com");
        assert_eq!(ask("x.ns.svc.cluster.local", kind::CNAME), "0 [->a.ns.svc.cluster.local] soa=0");
        assert!(ask("loop.ns.svc.cluster.local", kind::A).starts_with("2 "));
    }

    #[test]
    fn ports_are_found_by_name() {
        assert_eq!(ask("_http._tcp.a.ns.svc.cluster.local", kind::SRV), "0 [a.ns.svc.cluster.local:80] soa=0");
        assert_eq!(
            ask("_http._tcp.h.ns.svc.cluster.local", kind::SRV),
            "0 [m.h.ns.svc.cluster.local:80 10-0-0-3.h.ns.svc.cluster.local:80] soa=0"
        );
        assert_eq!(ask("_http._udp.a.ns.svc.cluster.local", kind::SRV), "3 [] soa=1");
    }
}
