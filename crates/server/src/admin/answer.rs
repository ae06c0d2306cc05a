//! What each path answers.

use std::fmt::Write as _;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use knoll_api::metrics::MetricFamily;
use knoll_apiserver::{UserInfo, attributes::Attributes};

use super::{Admin, Operate, Operation, PATIENCE, Sources, metrics, process};

/// Longest body that is read.
const BODY: usize = 64;
/// The same, of what is asked of a component: an event among them.
const OPERATION_BODY: usize = 17 << 20;

/// Who is asking.
pub(super) enum Caller {
    /// Who holds the local socket.
    Root,
    /// Who came over the network, and whom the client certificate names.
    Stranger(Option<UserInfo>),
}

type Answer = Response<Full<Bytes>>;

/// Answers one request.
pub(super) async fn to(admin: &Admin, caller: &Caller, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    match path {
        "/livez" | "/healthz" => return live(admin).await,
        "/readyz" => return ready(admin, parts.uri.query()),
        _ => {}
    }
    if let Some(refusal) = refuse(admin, caller, &parts) {
        return refusal;
    }
    if let Some((operate, below)) = operation(admin, path) {
        let body = match Limited::new(body, OPERATION_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return text(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {OPERATION_BODY} bytes\n")),
        };
        let (path, query) = (below.to_owned(), parts.uri.query().map(str::to_owned));
        return operate(Operation { method: parts.method, path, query, headers: parts.headers, body }).await;
    }
    match (&parts.method, path) {
        (&Method::PUT, "/log-level") => set_level(admin, body).await,
        (&Method::GET, "/log-level") => text(StatusCode::OK, admin.level.get() + "\n"),
        (&Method::GET, "/metrics") => numbers(admin),
        (&Method::GET, _) => dump(admin, path),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET, and PUT of /log-level\n"),
    }
}

/// What a path below a component's name is asked of, and what of the path is its own.
fn operation<'a>(admin: &'a Admin, path: &'a str) -> Option<(&'a Operate, &'a str)> {
    let operations = &admin.sources.get()?.operations;
    let (name, below) = path.strip_prefix('/')?.split_once('/').unwrap_or((path.strip_prefix('/')?, ""));
    operations.iter().find(|(known, _)| *known == name).map(|(_, operate)| (operate, below))
}

/// Why the caller may not: the local socket's may everything, others what RBAC says of the path.
fn refuse(admin: &Admin, caller: &Caller, parts: &http::request::Parts) -> Option<Answer> {
    let Caller::Stranger(certificate) = caller else { return None };
    let Some(authority) = admin.authority.get() else {
        return Some(text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"));
    };
    let Ok(identity) = authority.authenticate(&parts.headers, certificate.clone()) else {
        return Some(text(StatusCode::UNAUTHORIZED, "the credentials are not valid\n"));
    };
    let attributes = Attributes {
        verb: parts.method.as_str().to_lowercase(),
        path: parts.uri.path().to_owned(),
        ..Attributes::default()
    };
    let allowed = authority.authorize(&identity, &attributes).is_allowed();
    (!allowed).then(|| text(StatusCode::FORBIDDEN, format!("forbidden: {}\n", attributes.refusal(&identity, ""))))
}

/// Alive is who still runs what it is given.
async fn live(admin: &Admin) -> Answer {
    let sign = admin.rest.spawn(async {});
    match tokio::time::timeout(PATIENCE, sign).await {
        Ok(Ok(())) => text(StatusCode::OK, "ok"),
        _ => text(StatusCode::INTERNAL_SERVER_ERROR, format!("nothing runs since {} s\n", PATIENCE.as_secs())),
    }
}

/// In the form of kube-apiserver: `ok`, or with `?verbose` and on failure a line a check.
fn ready(admin: &Admin, query: Option<&str>) -> Answer {
    let Some(sources) = admin.sources.get() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "[-]start: the components are starting\nreadyz check failed\n");
    };
    let (lines, failed) = checks(sources);
    if failed {
        return text(StatusCode::SERVICE_UNAVAILABLE, lines + "readyz check failed\n");
    }
    let verbose = query.is_some_and(|query| query.split('&').any(|word| word.starts_with("verbose")));
    text(StatusCode::OK, if verbose { lines + "readyz check passed\n" } else { "ok".to_owned() })
}

fn checks(sources: &Sources) -> (String, bool) {
    let (mut lines, mut failed) = (String::new(), false);
    for (name, check) in &sources.checks {
        let written = match check() {
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(why) => {
                failed = true;
                writeln!(lines, "[-]{name} failed: {why}")
            }
        };
        written.expect("a string takes everything");
    }
    (lines, failed)
}

fn numbers(admin: &Admin) -> Answer {
    let ours: Vec<MetricFamily> =
        admin.sources.get().into_iter().flat_map(|s| &s.metrics).flat_map(|read| read()).collect();
    let mut answer = text(StatusCode::OK, metrics::text(ours, process::readings()));
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(metrics::CONTENT_TYPE));
    answer
}

fn dump(admin: &Admin, path: &str) -> Answer {
    let dumps = admin.sources.get().map(|sources| sources.dumps.as_slice()).unwrap_or_default();
    let wanted = path.strip_prefix("/debug/");
    if let Some((_, read)) = dumps.iter().find(|(name, _)| Some(*name) == wanted) {
        let body = serde_json::to_string_pretty(&read()).unwrap_or_default();
        return text(StatusCode::OK, body + "\n");
    }
    let paths = dumps.iter().fold(String::new(), |paths, (name, _)| paths + "/debug/" + name + "\n");
    let operations = admin.sources.get().map(|sources| sources.operations.as_slice()).unwrap_or_default();
    let paths = operations.iter().fold(paths, |paths, (name, _)| paths + "/" + name + "\n");
    let known = "/livez\n/readyz\n/metrics\n/log-level\n".to_owned() + &paths;
    if path == "/" {
        text(StatusCode::OK, known)
    } else {
        text(StatusCode::NOT_FOUND, "there is:\n".to_owned() + &known)
    }
}

async fn set_level(admin: &Admin, body: Incoming) -> Answer {
    let level = Limited::new(body, BODY).collect().await.map(|body| body.to_bytes());
    let level = level.map_err(|_| format!("a level has at most {BODY} bytes"));
    let set = level.and_then(|level| admin.level.set(&String::from_utf8_lossy(&level)));
    match set {
        Ok(()) => text(StatusCode::OK, admin.level.get() + "\n"),
        Err(why) => text(StatusCode::BAD_REQUEST, why + "\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}
