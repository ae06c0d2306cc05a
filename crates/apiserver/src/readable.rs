//! Whether Knoll's own parts can read what is to be stored of their kinds.
//!
//! What a schema lets through, a type may still refuse: a time that is none, a name outside its set. An object that nobody
//! reads is not gone, so what depends on it waits for as long as it is there, and whoever may write one could have others
//! wait. Upstream's webhooks refuse it alike, in statuses too ("cannot decode incoming new object").

use knoll_api::{Kind, Object, json};
use serde_json::Value;

use crate::{
    admission::promises,
    attributes::UserInfo,
    object,
    resources::Resource,
    status::{Cause, Status},
};

/// Bytes that are read again to find the field that an object cannot be read for.
const MOST_SEARCHED: usize = 1 << 20;

/// Refuses an object of a kind that Knoll acts on and could not read, whichever version it is written in. Costs reading it once;
/// what Knoll's own parts write, they have read.
///
/// # Errors
/// 422 that names the field; what a conversion fails with.
pub(crate) async fn check(resource: &Resource, writer: &UserInfo, object: &Value) -> Result<(), Status> {
    let Some(kind) = Kind::in_any_version(&resource.group, &resource.kind).filter(|_| !promises::is_own(&writer.user))
    else {
        return Ok(());
    };
    let mut stored = object.clone();
    if let Some(conversion) = resource.conversion {
        (conversion.write)(&mut stored).await?;
    }
    let Err(error) = Object::from_json(kind, stored.clone()) else { return Ok(()) };
    let (field, value) = culprit(kind, &stored);
    let cause = Cause::invalid(field, &value, &format!("it cannot be read: {error}"));
    Err(resource.invalid(object::name(object), vec![cause]))
}

/// The innermost field without which the object reads, as far as [`MOST_SEARCHED`] goes, and its value.
fn culprit(kind: Kind, object: &Value) -> (String, Value) {
    let mut left = MOST_SEARCHED / json::bytes_of(object).len();
    let (mut path, mut at) = (String::new(), String::new());
    'inner: while let Some(children) = object.pointer(&at).map(children) {
        for (name, shown) in children {
            let inner = format!("{at}/{name}");
            if left == 0 {
                break 'inner;
            }
            left -= 1;
            if Object::from_json(kind, without(object, &at, &name)).is_ok() {
                at = inner;
                path += &shown;
                continue 'inner;
            }
        }
        break;
    }
    let value = object.pointer(&at).filter(|_| !at.is_empty()).cloned().unwrap_or_default();
    (path.trim_start_matches('.').to_owned(), value)
}

/// Names of a value's parts, as in a pointer and as they are shown.
fn children(value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(fields) => {
            fields.keys().map(|name| (name.replace('~', "~0").replace('/', "~1"), format!(".{name}"))).collect()
        }
        Value::Array(items) => (0..items.len()).map(|index| (index.to_string(), format!("[{index}]"))).collect(),
        _ => Vec::new(),
    }
}

fn without(object: &Value, at: &str, name: &str) -> Value {
    let mut object = object.clone();
    match object.pointer_mut(at) {
        Some(Value::Object(fields)) => {
            fields.remove(&name.replace("~1", "/").replace("~0", "~"));
        }
        Some(Value::Array(items)) => {
            if let Ok(index) = name.parse::<usize>() {
                items.remove(index);
            }
        }
        _ => {}
    }
    object
}
