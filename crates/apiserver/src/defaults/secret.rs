//! Secrets.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::object::{self, default as set};

/// An opaque type; `stringData` becomes `data`.
pub(crate) fn default(secret: &mut Value) {
    let Some(map) = secret.as_object_mut() else { return };
    set(map, "type", "Opaque");
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    let data = object::map_at(secret, "data");
    for (key, value) in plain {
        if let Value::String(text) = value {
            data.insert(key, STANDARD.encode(text).into());
        }
    }
}
