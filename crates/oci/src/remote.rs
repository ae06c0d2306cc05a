//! The client side of registries: as much of the distribution API as pulling needs.
//!
//! A session belongs to one image and one login. Nothing of it outlives it, so nobody is ever answered with what
//! another's credentials opened. What registries send is bounded in size and in time.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;

use knoll_faults::chain;

use crate::{
    Digest, LimitError, Limits, PullError, Reference,
    challenge::{Challenge, parse_challenges},
    client::{Ask, Client, Proxies, Response, address, is_loopback, may_lead, origin},
    keychain::{Candidate, Login},
    local::Config,
    pace::{Average, Pace},
};

/// Manifest media types we take.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// Longest wait for all of a small answer.
const SMALL: Duration = Duration::from_secs(60);
/// Bytes of a token or of an error that are read.
const SMALL_BYTES: u64 = 256 << 10;

/// Clients are made when first needed: one cannot be made on a machine without CA certificates, which may never pull
/// anything, or get them later.
pub(crate) struct Remote {
    https: OnceLock<Client>,
    http: OnceLock<Client>,
    insecure: Vec<String>,
    limits: Limits,
}

fn host_of(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    }
}

impl Remote {
    pub(crate) fn new(config: &Config) -> Self {
        let (insecure, limits) = (config.insecure_registries.clone(), config.limits.clone());
        Self { https: OnceLock::new(), http: OnceLock::new(), insecure, limits }
    }

    /// Begins to ask for an image: over plain http on loopback and where it was asked for.
    pub(crate) fn session<'a>(
        &'a self,
        image: &'a Reference,
        candidate: Option<Candidate<'a>>,
    ) -> Result<Session<'a>, PullError> {
        let plain = is_loopback(host_of(&image.registry)) || self.insecure.contains(&image.registry);
        let (kept, scheme) = if plain { (&self.http, "http") } else { (&self.https, "https") };
        let failed = |reason: String| PullError::Registry { image: image.clone(), reason: reason.into() };
        let client = match kept.get() {
            Some(client) => client,
            None => {
                let made = Client::new(Proxies::of_environment()).map_err(|error| failed(chain(&error)))?;
                kept.get_or_init(|| made)
            }
        };
        // The hub's API is at a host of its own.
        let host = if image.registry == "docker.io" { "registry-1.docker.io" } else { &image.registry };
        let base = format!("{scheme}://{host}/v2/{}", image.repository);
        let base = address(&base).ok_or_else(|| failed(format!("{base} is no address")))?;
        let (authorization, average) = (Mutex::default(), Average::default());
        Ok(Session { client, image, base, candidate, authorization, limits: &self.limits, average })
    }
}

/// The way by which a registry gave an image out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// One that is open to every pod of this machine: to nobody in particular, or by the machine's own login.
    Everybody,
    /// By this login.
    Login(Login),
}

/// One image's conversation with its registry.
pub(crate) struct Session<'a> {
    client: &'a Client,
    image: &'a Reference,
    /// Where the image is, without a slash at the end.
    base: Uri,
    candidate: Option<Candidate<'a>>,
    /// What the registry asked us to present.
    authorization: Mutex<Option<HeaderValue>>,
    limits: &'a Limits,
    /// How fast all its blobs come.
    average: Average,
}

/// A blob on its way.
pub(crate) struct Blob {
    response: Response,
    pace: Pace,
}

impl Blob {
    /// The next piece; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        let chunk = self.pace.wait(self.response.chunk()).await.map_err(|e| e.to_string())?;
        let chunk = chunk.map_err(|e| chain(&e))?;
        self.pace.moved(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64));
        Ok(chunk)
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl<'a> Session<'a> {
    fn failed(&self, reason: impl Into<Box<str>>) -> PullError {
        PullError::Registry { image: self.image.clone(), reason: reason.into() }
    }

    fn unauthorized(&self, reason: impl Into<Box<str>>) -> PullError {
        PullError::Unauthorized { image: self.image.clone(), reason: reason.into() }
    }

    fn presented(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the registry came to answer what it answered so far.
    pub(crate) fn proof(&self) -> Proof {
        match (self.candidate, self.presented()) {
            (Some(Candidate { login, is_machines: false }), Some(_)) => Proof::Login(login.clone()),
            _ => Proof::Everybody,
        }
    }

    async fn attempt(&self, method: &Method, path: &str, within: Option<Duration>) -> Result<Response, PullError> {
        let url = format!("{}/{path}", self.base);
        let to = address(&url).ok_or_else(|| self.failed(format!("{url} is no address")))?;
        let mut headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(ACCEPT))]);
        if let Some(authorization) = self.presented() {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let ask = Ask { method: method.clone(), to, headers, body: Bytes::new(), within };
        self.client.send(ask).await.map_err(|error| self.failed(format!("{method} {url}: {}", chain(&error))))
    }

    /// Asks, and asks again when the registry wants to know who we are.
    async fn ask(&self, method: Method, path: &str, within: Option<Duration>) -> Result<Response, PullError> {
        let response = self.attempt(&method, path, within).await?;
        // Only the registry itself may ask for what belongs to it, not who it sent us to.
        let is_registry = origin(&response.from) == origin(&self.base);
        if response.status != StatusCode::UNAUTHORIZED || !is_registry {
            return self.accept(&method, path, response).await;
        }
        match challenge_of(&response.headers) {
            Some(challenge) => self.answer(challenge).await?,
            None => return self.accept(&method, path, response).await,
        }
        drop(response);
        let response = self.attempt(&method, path, within).await?;
        self.accept(&method, path, response).await
    }

    /// Takes success, and says what else it is.
    async fn accept(&self, method: &Method, path: &str, response: Response) -> Result<Response, PullError> {
        let status = response.status;
        if status.is_success() {
            return Ok(response);
        }
        let said = message(response).await.map(|said| format!(": {said}")).unwrap_or_default();
        let reason = format!("{method} {}/{path}: {status}{said}", self.base);
        Err(match status {
            StatusCode::NOT_FOUND => PullError::NotFound(self.image.clone()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.unauthorized(reason),
            _ => self.failed(reason),
        })
    }

    /// Gets ready what the registry asked for.
    async fn answer(&self, challenge: Challenge) -> Result<(), PullError> {
        let login = self.candidate.map(|candidate| candidate.login);
        let value = match (challenge, login) {
            (Challenge::Bearer { realm, service }, login) => {
                format!("Bearer {}", self.token(&realm, service.as_deref(), login).await?)
            }
            (Challenge::Basic, Some(login)) if !login.is_identity_token => basic(login),
            (Challenge::Basic, _) => {
                return Err(self.unauthorized("401 Unauthorized: a user and a password are wanted"));
            }
        };
        let mut value =
            HeaderValue::from_str(&value).map_err(|_| self.failed("the credentials hold what no header can"))?;
        value.set_sensitive(true);
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// How a token is asked for.
    fn question(&self, realm: &str, service: Option<&str>, login: Option<&Login>) -> Result<Ask, PullError> {
        let no_address = || self.failed(format!("its realm {realm:?} is no address"));
        let url = address(realm).ok_or_else(no_address)?;
        if !may_lead(&self.base, &url) {
            return Err(self.failed(format!("it asks for credentials at {realm}, where they may not go")));
        }
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.append_pair("scope", &format!("repository:{}:pull", self.image.repository));
        if let Some(service) = service {
            pairs.append_pair("service", service);
        }
        let mut headers = HeaderMap::new();
        if let Some(login) = login.filter(|login| login.is_identity_token) {
            pairs.append_pair("grant_type", "refresh_token").append_pair("client_id", "knoll");
            pairs.append_pair("refresh_token", &login.secret);
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, kind);
            let body = pairs.finish().into();
            return Ok(Ask { method: Method::POST, to: url, headers, body, within: Some(SMALL) });
        }
        let joint = if url.query().is_some() { '&' } else { '?' };
        let to = address(&format!("{url}{joint}{}", pairs.finish())).ok_or_else(no_address)?;
        if let Some(login) = login {
            let mut basic = HeaderValue::try_from(basic(login))
                .map_err(|_| self.failed("the credentials hold what no header can"))?;
            basic.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, basic);
        }
        Ok(Ask { method: Method::GET, to, headers, body: Bytes::new(), within: Some(SMALL) })
    }

    async fn token(&self, realm: &str, service: Option<&str>, login: Option<&Login>) -> Result<String, PullError> {
        let response = self.client.send(self.question(realm, service, login)?).await;
        let response = response.map_err(|e| self.failed(format!("ask {realm} for a token: {}", chain(&e))))?;
        let status = response.status;
        if !status.is_success() {
            let said = message(response).await.map(|said| format!(": {said}")).unwrap_or_default();
            let reason = format!("ask {realm} for a token: {status}{said}");
            return Err(if status.is_client_error() { self.unauthorized(reason) } else { self.failed(reason) });
        }
        let body = self.body(response, "bytes of a token", SMALL_BYTES).await?;
        let token: Option<Token> = serde_json::from_slice(&body).ok();
        let token = token.and_then(|token| token.token.or(token.access_token)).filter(|token| !token.is_empty());
        token.ok_or_else(|| self.failed(format!("{realm} gave no token")))
    }

    /// All of a small answer.
    async fn body(&self, response: Response, what: &'static str, limit: u64) -> Result<Vec<u8>, PullError> {
        bounded(response, what, limit).await.map_err(|reason| self.failed(reason))
    }

    /// The digest that a tag or digest of the image stands for.
    pub(crate) async fn digest(&self, reference: &str) -> Result<Digest, PullError> {
        let response = self.ask(Method::HEAD, &format!("manifests/{reference}"), Some(SMALL)).await?;
        match told_digest(&response.headers) {
            Some(digest) => self.expected(reference, digest),
            // Not every registry says; then the content does.
            None => self.manifest(reference).await.map(|(_, digest)| digest),
        }
    }

    /// The manifest that a tag or digest of the image stands for.
    pub(crate) async fn manifest(&self, reference: &str) -> Result<(Vec<u8>, Digest), PullError> {
        let response = self.ask(Method::GET, &format!("manifests/{reference}"), Some(SMALL)).await?;
        let told = told_digest(&response.headers);
        let bytes = self.body(response, "bytes of a manifest", self.limits.manifest_bytes).await?;
        let digest = Digest::of(&bytes);
        if told.is_some_and(|told| told != digest) {
            return Err(self.failed(format!("the manifest has digest {digest}, the registry says otherwise")));
        }
        Ok((bytes, self.expected(reference, digest)?))
    }

    fn expected(&self, reference: &str, found: Digest) -> Result<Digest, PullError> {
        match reference.parse::<Digest>() {
            Ok(wanted) if wanted != found => Err(self.failed(format!("asked for {wanted}, it gave {found}"))),
            _ => Ok(found),
        }
    }

    /// A blob of the image.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Blob, PullError> {
        let response = self.ask(Method::GET, &format!("blobs/{digest}"), None).await?;
        Ok(Blob { response, pace: Pace::within(self.average.clone()) })
    }
}

fn basic(login: &Login) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.secret)))
}

fn challenge_of(headers: &HeaderMap) -> Option<Challenge> {
    parse_challenges(headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()))
}

fn told_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

async fn bounded(mut response: Response, what: &'static str, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
        LimitError::check(what, (bytes.len() + chunk.len()) as u64, limit).map_err(|e| e.to_string())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What a registry's refusal says, in one line.
async fn message(response: Response) -> Option<String> {
    let bytes = bounded(response, "bytes of an error", SMALL_BYTES).await.ok()?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let text = value["errors"][0]["message"].as_str().or(value["details"].as_str())?;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Where no certificates are.
    const NOWHERE: &str = "/nowhere";

    #[test]
    fn without_ca_certificates_a_pull_fails_and_nothing_else() {
        // What a process trusts is in its environment, so this looks from one of its own.
        if std::env::var("SSL_CERT_FILE").as_deref() != Ok(NOWHERE) {
            let name = "remote::tests::without_ca_certificates_a_pull_fails_and_nothing_else";
            let mut same = Command::new(std::env::current_exe().expect("this program"));
            same.args(["--exact", name]).env("SSL_CERT_FILE", NOWHERE).env("SSL_CERT_DIR", NOWHERE);
            let output = same.output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let remote = Remote::new(&Config::default());
        let image: Reference = "registry.example/app:v1".parse().expect("a reference");
        let error = remote.session(&image, None).map(|_| ()).expect_err("nobody could be trusted");
        assert!(
            error.to_string().ends_with("does this machine have CA certificates (package ca-certificates)?"),
            "{error}"
        );
    }
}
