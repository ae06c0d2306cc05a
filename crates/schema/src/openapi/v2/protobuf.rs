//! The document in the form `kubectl` asks for: the messages of `openapi.v2`.

use serde_json::Value;

/// A document of v2 as the message `Document`.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, &document["swagger"]);
    message.nested(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    message.nested(8, |paths| named(paths, 2, &document["paths"], path_item));
    message.nested(9, |definitions| named(definitions, 1, &document["definitions"], schema));
    message.0
}

/// A message under way.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, tag: u64, bytes: &[u8]) {
        self.varint(tag << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A member that is text, where it is there.
    fn text(&mut self, tag: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn texts(&mut self, tag: u64, values: &Value) {
        values.as_array().into_iter().flatten().for_each(|value| self.text(tag, value));
    }

    fn flag(&mut self, tag: u64, value: &Value) {
        if value == &Value::Bool(true) {
            self.varint(tag << 3);
            self.varint(1);
        }
    }

    fn nested(&mut self, tag: u64, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(tag, &inner.0);
    }

    /// Anything, as YAML, which JSON is.
    fn any(&mut self, tag: u64, value: &Value) {
        self.nested(tag, |any| any.bytes(2, value.to_string().as_bytes()));
    }

    /// What begins with `x-`.
    fn extensions(&mut self, tag: u64, object: &Value) {
        for (name, value) in object.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
            self.nested(tag, |one| {
                one.bytes(1, name.as_bytes());
                one.any(2, value);
            });
        }
    }
}

/// The entries of a map, each with its name.
fn named(message: &mut Message, tag: u64, entries: &Value, fill: fn(&mut Message, &Value)) {
    for (name, value) in entries.as_object().into_iter().flatten() {
        message.nested(tag, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.nested(2, |inner| fill(inner, value));
        });
    }
}

fn path_item(message: &mut Message, item: &Value) {
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(given) = item.get(method) {
            message.nested(tag, |inner| operation(inner, given));
        }
    }
    parameters(message, 9, &item["parameters"]);
}

fn operation(message: &mut Message, given: &Value) {
    message.texts(1, &given["tags"]);
    message.texts(6, &given["produces"]);
    message.texts(7, &given["consumes"]);
    parameters(message, 8, &given["parameters"]);
    message.nested(9, |responses| named(responses, 1, &given["responses"], response));
    message.extensions(13, given);
}

fn response(message: &mut Message, given: &Value) {
    message.nested(1, |response| {
        response.text(1, &given["description"]);
        response.nested(2, |item| item.nested(1, |inner| schema(inner, &given["schema"])));
    });
}

fn parameters(message: &mut Message, tag: u64, given: &Value) {
    for one in given.as_array().into_iter().flatten() {
        message.nested(tag, |item| item.nested(1, |inner| parameter(inner, one)));
    }
}

fn parameter(message: &mut Message, given: &Value) {
    match given["in"].as_str() {
        Some("body") => message.nested(1, |body| {
            body.text(2, &given["name"]);
            body.text(3, &given["in"]);
            body.flag(4, &given["required"]);
            body.nested(5, |inner| schema(inner, &given["schema"]));
        }),
        Some("path") => message.nested(2, |other| other.nested(4, |path| plain(path, given, (5, 19)))),
        _ => message.nested(2, |other| other.nested(3, |query| plain(query, given, (6, 20)))),
    }
}

/// A parameter that is one value; what it is has other tags in a query than in a path.
fn plain(message: &mut Message, given: &Value, (kind, unique): (u64, u64)) {
    message.flag(1, &given["required"]);
    message.text(2, &given["in"]);
    message.text(4, &given["name"]);
    message.text(kind, &given["type"]);
    message.flag(unique, &given["uniqueItems"]);
}

fn schema(message: &mut Message, given: &Value) {
    message.text(1, &given["$ref"]);
    message.text(2, &given["format"]);
    message.text(4, &given["description"]);
    if let Some(default) = given.get("default") {
        message.any(5, default);
    }
    message.texts(19, &given["required"]);
    for value in given["enum"].as_array().into_iter().flatten() {
        message.any(20, value);
    }
    if let Some(values) = given.get("additionalProperties") {
        message.nested(21, |item| item.nested(1, |inner| schema(inner, values)));
    }
    if given["type"].is_string() {
        message.nested(22, |kind| kind.text(1, &given["type"]));
    }
    if let Some(items) = given.get("items") {
        message.nested(23, |item| item.nested(1, |inner| schema(inner, items)));
    }
    if let Some(properties) = given.get("properties") {
        message.nested(25, |all| named(all, 1, properties, schema));
    }
    message.extensions(31, given);
}
