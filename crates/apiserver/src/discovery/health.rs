//! Health: a server that answers has loaded its state.

use http::Response;

use crate::{body::Body, query::Query, respond};

const CHECKS: &[&str] = &["ping", "log", "etcd"];

/// `/healthz`, `/livez`, `/readyz`, each check on its own, and what they say when asked for more.
pub(super) fn answer(segments: &[&str], query: &Query) -> Response<Body> {
    match segments {
        [_, check] if CHECKS.contains(check) => respond::text(200, "ok"),
        [name] if query.has("verbose") => {
            let lines: String = CHECKS
                .iter()
                .map(|check| match query.all("exclude").any(|e| e == *check) {
                    true => format!("[+]{check} excluded: ok\n"),
                    false => format!("[+]{check} ok\n"),
                })
                .collect();
            respond::text(200, format!("{lines}{name} check passed\n"))
        }
        [_] => respond::text(200, "ok"),
        _ => respond::text(404, "404 page not found\n"),
    }
}
