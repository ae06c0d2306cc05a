//! The targets, by what they read.

mod credentials;
mod documents;
mod events;
mod images;
mod layers;
mod messages;
mod network;
mod records;
mod requests;
mod text;

use serde_json::Value;

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    layers::ARCHIVE,
    layers::LAYER,
    images::IMAGE_DOCUMENTS,
    images::IMAGE_REFERENCE,
    images::CHALLENGE,
    images::KEYCHAIN,
    images::IMAGE_USER,
    network::DNS,
    network::HOST,
    network::HEADERS,
    messages::WEB_SOCKET,
    messages::MONITOR_FRAMES,
    documents::JSON,
    documents::YAML,
    documents::PROTOBUF,
    documents::JSON_PATCH,
    documents::STRATEGIC_PATCH,
    documents::APPLY,
    documents::DEFINITION,
    text::LABEL_SELECTOR,
    text::FIELD_SELECTOR,
    text::JSON_PATH,
    text::TEMPLATE,
    text::QUANTITY,
    text::DURATION,
    text::SCHEDULE,
    text::CESQL,
    events::EVENT_JSON,
    events::EVENT_BATCH,
    events::EVENT_HEADERS,
    credentials::TOKEN,
    credentials::CERTIFICATE,
    records::JOURNAL,
    records::RECORD,
    records::CHECKPOINT,
    requests::REQUESTS,
];

/// What stands between the parts of an input that has several.
const SEPARATOR: &[u8] = b"\n---\n";

/// The parts of an input.
fn parts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(input);
    std::iter::from_fn(move || {
        let whole = rest.take()?;
        let at = whole.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let Some(at) = at else { return Some(whole) };
        rest = Some(&whole[at + SEPARATOR.len()..]);
        Some(&whole[..at])
    })
}

/// The trees that the parts of an input are; `None` when one is none.
fn trees(input: &[u8]) -> Option<Vec<Value>> {
    parts(input).map(|part| knoll_schema::json::from_json(part).ok().map(|parsed| parsed.value)).collect()
}
