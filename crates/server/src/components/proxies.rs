//! The machine's proxy settings, as its containers get them.

use knoll_container::protocol::GATEWAY;

use super::{PODS, SERVICES};

/// Names, in lower case, of settings that name a proxy.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];
const EXCEPTIONS: &str = "no_proxy";

/// The proxy settings among the machine's variables, in lower and in upper case, since programs differ in what they
/// read. What is inside the cluster is reached without a proxy. Empty when the machine has none.
pub(super) fn for_containers(variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let set = |name: &str| {
        let value = variable(name).or_else(|| variable(&name.to_uppercase()));
        value.filter(|value| !value.is_empty())
    };
    let mut all: Vec<(String, String)> =
        PROXIES.iter().filter_map(|name| Some(((*name).to_owned(), set(name)?))).collect();
    if all.is_empty() {
        return all;
    }
    let range = |(first, prefix)| format!("{first}/{prefix}");
    let ours = ["localhost", "127.0.0.0/8", "::1", ".svc", ".cluster.local"].map(str::to_owned);
    let ours = ours.into_iter().chain([range(PODS), range(SERVICES), GATEWAY.to_string()]);
    let exceptions: Vec<String> = set(EXCEPTIONS).into_iter().chain(ours).collect();
    all.push((EXCEPTIONS.to_owned(), exceptions.join(",")));
    let upper: Vec<_> = all.iter().map(|(name, value)| (name.to_uppercase(), value.clone())).collect();
    all.extend(upper);
    all
}

#[cfg(test)]
mod tests {
    use super::for_containers;

    fn given(variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        for_containers(variable).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn without_a_proxy_there_are_no_settings() {
        assert_eq!(given(&[]), Vec::<String>::new());
        assert_eq!(given(&[("http_proxy", ""), ("NO_PROXY", "example.test")]), Vec::<String>::new());
    }

    #[test]
    fn both_cases_are_set_and_the_cluster_is_excepted() {
        let inside = "localhost,127.0.0.0/8,::1,.svc,.cluster.local,10.244.0.0/16,10.96.0.0/12,169.254.77.1";
        let wanted = [
            "https_proxy=http://p:3128".to_owned(),
            format!("no_proxy=example.test,{inside}"),
            "HTTPS_PROXY=http://p:3128".to_owned(),
            format!("NO_PROXY=example.test,{inside}"),
        ];
        assert_eq!(given(&[("HTTPS_PROXY", "http://p:3128"), ("no_proxy", "example.test")]), wanted);
    }
}
