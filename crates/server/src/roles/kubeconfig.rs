//! What a kubeconfig says about one API server and one user, and what a pod is told instead.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

/// Where pods find their token and the server's authority.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// An API server, and who to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// Host name or address.
    pub(super) host: String,
    pub(super) port: u16,
    /// PEM of the authority that signed the server's certificate.
    pub(super) authority: Vec<u8>,
    pub(super) user: User,
}

/// Who to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// PEM of a certificate and its key.
    Certificate(Vec<u8>, Vec<u8>),
    /// A token.
    Token(String),
    /// A file that holds a token, which may change.
    TokenFile(PathBuf),
}

/// Where it is said which API server, and who to be there. It may change while the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The current context of a kubeconfig.
    File(PathBuf),
    /// What a pod is told about its own cluster.
    Pod,
}

impl Source {
    /// What it says now.
    pub(super) fn read(&self) -> Result<Access, NoAccess> {
        match self {
            Source::File(path) => Access::read(path),
            Source::Pod => Access::in_cluster(),
        }
    }
}

/// Why there is no access: the field, and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoAccess(String);

fn no<T>(why: impl Into<String>) -> Result<T, NoAccess> {
    Err(NoAccess(why.into()))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<Named>,
    #[serde(default)]
    contexts: Vec<Named>,
    #[serde(default)]
    users: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    cluster: Option<Cluster>,
    #[serde(default)]
    context: Option<Context>,
    #[serde(default)]
    user: Option<AuthInfo>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
}

#[derive(Clone, Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct AuthInfo {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<serde_json::Value>,
}

impl Access {
    /// The current context of the kubeconfig at `path`.
    pub(super) fn read(path: &Path) -> Result<Access, NoAccess> {
        let text = fs::read_to_string(path).map_err(|e| NoAccess(format!("read {}: {e}", path.display())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Access::parse(&text, folder).map_err(|e| NoAccess(format!("{}: {e}", path.display())))
    }

    /// What a pod is told about its own cluster.
    pub(super) fn in_cluster() -> Result<Access, NoAccess> {
        let variable = |name: &str| {
            std::env::var(name).or_else(|_| no(format!("neither --kubeconfig was given nor {name} set, as in a pod")))
        };
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let port = port.parse().or_else(|_| no(format!("KUBERNETES_SERVICE_PORT: {port} is no port")))?;
        let folder = Path::new(SERVICE_ACCOUNT);
        let authority = contents(Some(&folder.join("ca.crt")), None, "ca.crt", folder)?;
        Ok(Access { host, port, authority, user: User::TokenFile(folder.join("token")) })
    }

    /// `folder` is where relative paths begin.
    fn parse(text: &str, folder: &Path) -> Result<Access, NoAccess> {
        let file: File = serde_saphyr::from_str(text).or_else(|e| no(format!("not a kubeconfig: {e}")))?;
        let named = |list: &[Named], what: &str, name: &str| {
            let found = list.iter().position(|one| one.name == name);
            found.map_or_else(|| no(format!("{what}: there is none of the name \"{name}\"")), Ok)
        };
        if file.current_context.is_empty() {
            return no("current-context: not set; choose one with kubectl config use-context");
        }
        let at = named(&file.contexts, "contexts", &file.current_context)?;
        let Some(context) = file.contexts[at].context.clone() else { return no("contexts: one has no context") };
        let at = named(&file.clusters, "clusters", &context.cluster)?;
        let cluster = file.clusters[at].cluster.clone().unwrap_or_default();
        let at = named(&file.users, "users", &context.user)?;
        let user = file.users[at].user.clone().unwrap_or_default();
        if cluster.insecure_skip_tls_verify {
            return no("insecure-skip-tls-verify: not supported; give certificate-authority-data");
        }
        let (host, port) = endpoint(&cluster.server)?;
        let data = cluster.certificate_authority_data.as_deref();
        let authority = contents(cluster.certificate_authority.as_deref(), data, "certificate-authority", folder)?;
        Ok(Access { host, port, authority, user: user.user(folder)? })
    }
}

impl AuthInfo {
    fn user(self, folder: &Path) -> Result<User, NoAccess> {
        if let Some(token) = self.token.filter(|token| !token.is_empty()) {
            return Ok(User::Token(token));
        }
        if let Some(file) = self.token_file {
            return Ok(User::TokenFile(folder.join(file)));
        }
        if self.exec.is_some() {
            return no("users: exec plugins are not supported; make a token with kubectl create token and give that");
        }
        let data = self.client_certificate_data.as_deref();
        let certificate = contents(self.client_certificate.as_deref(), data, "client-certificate", folder)?;
        let key = contents(self.client_key.as_deref(), self.client_key_data.as_deref(), "client-key", folder)?;
        Ok(User::Certificate(certificate, key))
    }
}

/// What a field holds: base64 in the file, or a file of its own.
fn contents(path: Option<&Path>, data: Option<&str>, field: &str, folder: &Path) -> Result<Vec<u8>, NoAccess> {
    if let Some(data) = data {
        return STANDARD.decode(data.trim()).or_else(|e| no(format!("{field}-data: {e}")));
    }
    let Some(path) = path else { return no(format!("{field}: neither a file nor {field}-data is given")) };
    let path = folder.join(path);
    fs::read(&path).or_else(|e| no(format!("{field}: read {}: {e}", path.display())))
}

fn endpoint(server: &str) -> Result<(String, u16), NoAccess> {
    let uri: http::Uri = server.parse().or_else(|e| no(format!("server: {server}: {e}")))?;
    if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") {
        return no(format!("server: {server}: it must be https://HOST[:PORT]"));
    }
    let Some(host) = uri.host() else { return no(format!("server: {server} has no host")) };
    Ok((host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(443)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(server: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: k, cluster: {{server: \"{server}\", certificate-authority-data: Q0E=}}}}]\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             users: [{{name: u, user: {user}}}]\n"
        )
    }

    fn parse(text: &str) -> Result<Access, String> {
        Access::parse(text, Path::new("/nowhere")).map_err(|e| e.to_string())
    }

    #[test]
    fn the_current_context_says_where_and_who() {
        let access = parse(&kubeconfig("https://10.0.0.1:6443", "{token: t}")).expect("access");
        assert_eq!((access.host.as_str(), access.port), ("10.0.0.1", 6443));
        assert_eq!((access.authority, access.user), (b"CA".to_vec(), User::Token("t".into())));
        let user = "{client-certificate-data: Qw==, client-key-data: Sw==}";
        let access = parse(&kubeconfig("https://[fd00::1]", user)).expect("access");
        assert_eq!((access.host.as_str(), access.port), ("fd00::1", 443));
        assert_eq!(access.user, User::Certificate(b"C".to_vec(), b"K".to_vec()));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, field) in [
            (kubeconfig("http://10.0.0.1", "{token: t}"), "server"),
            (kubeconfig("https://10.0.0.1", "{}"), "client-certificate"),
            (kubeconfig("https://10.0.0.1", "{exec: {command: x}}"), "exec"),
            (kubeconfig("https://a", "{token: t}").replace("current-context: c", "current-context: d"), "contexts"),
            ("clusters: 5".into(), "not a kubeconfig"),
        ] {
            let error = parse(&text).expect_err("no access");
            assert!(error.contains(field), "{error}");
        }
    }
}
