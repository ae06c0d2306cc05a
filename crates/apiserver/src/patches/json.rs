//! RFC 6902 within bounds: what copies make is counted, nothing becomes deeper than an object may be, and long lists
//! are not moved about without end.

use json_patch::{Patch, PatchOperation, patch_unsafe};
use knoll_schema::limits::{self, DEPTH, Measure};
use serde_json::Value;

use crate::{body, status::Status};

/// Most operations.
const OPERATIONS: usize = 10_000;
/// Most bytes that copies make together, as JSON: what a request may bring.
const COPIED: usize = body::LIMIT;
/// Most memory, by estimate, of what moves carry together: each is looked at whole, for how deep it becomes.
const MOVED: usize = 8 * limits::WEIGHT;
/// Most list items that operations on lists pass over together.
const SHIFTED: usize = 20_000_000;

/// Reads the operations.
///
/// # Errors
/// 413 when there are too many, 400 when one is malformed.
pub(crate) fn read(value: Value) -> Result<Patch, Status> {
    let Value::Array(operations) = value else {
        return Err(Status::bad_request("error decoding patch: a JSON patch must be a list of operations"));
    };
    if operations.len() > OPERATIONS {
        let count = operations.len();
        return Err(Status::too_large(&format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {count}"
        )));
    }
    serde_json::from_value(Value::Array(operations))
        .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))
}

/// Applies the operations; `object` is of no use after a failure.
///
/// # Errors
/// 422 for an operation that does not fit, 413 beyond a bound.
pub(crate) fn apply(object: &mut Value, patch: &Patch) -> Result<(), Status> {
    let mut spent = Spent::default();
    for operation in &patch.0 {
        spent.count(object, operation)?;
        patch_unsafe(object, std::slice::from_ref(operation)).map_err(|_| Status::unprocessable())?;
    }
    Ok(())
}

/// What the operations so far came to.
#[derive(Default)]
struct Spent {
    copied: usize,
    weight: usize,
    moved: usize,
    shifted: usize,
}

impl Spent {
    fn count(&mut self, object: &Value, operation: &PatchOperation) -> Result<(), Status> {
        let path = operation.path().as_str();
        match operation {
            PatchOperation::Test(_) => return Ok(()),
            PatchOperation::Remove(_) => {}
            PatchOperation::Add(add) => drop(nest(path, &add.value)?),
            PatchOperation::Replace(replace) => drop(nest(path, &replace.value)?),
            PatchOperation::Move(moved) => {
                self.shift(object, moved.from.as_str())?;
                let measure = nest(path, find(object, moved.from.as_str())?)?;
                self.carry(&measure)?;
            }
            PatchOperation::Copy(copy) => {
                let measure = nest(path, find(object, copy.from.as_str())?)?;
                self.copy(&measure)?;
            }
        }
        self.shift(object, path)
    }

    fn carry(&mut self, measure: &Measure) -> Result<(), Status> {
        self.moved = self.moved.saturating_add(measure.weight);
        if self.moved > MOVED {
            return Err(Status::too_large("the operations of a JSON patch move too much"));
        }
        Ok(())
    }

    fn copy(&mut self, measure: &Measure) -> Result<(), Status> {
        self.copied = self.copied.saturating_add(measure.bytes);
        self.weight = self.weight.saturating_add(measure.weight);
        if self.copied > COPIED || self.weight > limits::WEIGHT {
            return Err(Status::too_large(&format!(
                "unable to complete the copy: what the copies of a JSON patch make together is limited to {COPIED} bytes"
            )));
        }
        Ok(())
    }

    /// Counts the items of the list that an operation at `path` may move.
    fn shift(&mut self, object: &Value, path: &str) -> Result<(), Status> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let Some(Value::Array(items)) = object.pointer(parent) else { return Ok(()) };
        self.shifted = self.shifted.saturating_add(items.len());
        if self.shifted > SHIFTED {
            return Err(Status::too_large("the operations of a JSON patch move too many items of long lists"));
        }
        Ok(())
    }
}

fn find<'a>(object: &'a Value, path: &str) -> Result<&'a Value, Status> {
    object.pointer(path).ok_or_else(Status::unprocessable)
}

/// What a value comes to. Refuses to put it where it would reach deeper than an object may.
fn nest(path: &str, value: &Value) -> Result<Measure, Status> {
    let (above, measure) = (path.matches('/').count(), limits::measure(value));
    if above.saturating_add(measure.depth) > DEPTH {
        return Err(Status::bad_request(format!("the patched object {}", limits::Exceeded::Depth)));
    }
    Ok(measure)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply_all(mut object: Value, operations: Value) -> Result<Value, u16> {
        let patch = read(operations).map_err(|status| status.code)?;
        apply(&mut object, &patch).map(|()| object).map_err(|status| status.code)
    }

    #[test]
    fn copies_of_copies_are_refused_before_they_are_made() {
        let copies: Vec<Value> =
            (0..40).map(|at| json!({"op": "copy", "from": "/data", "path": format!("/data/a{at}")})).collect();
        let object = json!({"data": {"k": "x".repeat(1000)}});
        assert_eq!(
            apply_all(object.clone(), Value::Array(copies[..8].to_vec())).unwrap()["data"]["a0"]["k"],
            object["data"]["k"]
        );
        assert_eq!(apply_all(object, Value::Array(copies)), Err(413));
        // A copy into itself doubles the depth: ten of them would reach a thousand levels.
        let deeper =
            json!([{"op": "copy", "from": "/d", "path": "/d/d"}, {"op": "copy", "from": "/d", "path": "/d/d/d"}]);
        let mut many = Vec::new();
        for at in 0..30 {
            let path = format!("/d{}", "/d".repeat((1 << at.min(6)) as usize));
            many.push(json!({"op": "copy", "from": "/d", "path": path}));
        }
        assert!(apply_all(json!({"d": {}}), deeper).is_ok());
        assert_eq!(apply_all(json!({"d": {}}), Value::Array(many)), Err(400));
    }

    #[test]
    fn nothing_is_put_deeper_than_an_object_may_be() {
        let path = "/a".repeat(DEPTH);
        assert_eq!(apply_all(json!({}), json!([{"op": "add", "path": path, "value": [1]}])), Err(400));
    }

    #[test]
    fn long_lists_are_not_moved_about_without_end() {
        let object = json!({"l": vec![0; 100_000]});
        let shift: Vec<Value> = (0..300).map(|_| json!({"op": "add", "path": "/l/0", "value": 1})).collect();
        assert!(apply_all(object.clone(), Value::Array(shift[..100].to_vec())).is_ok());
        assert_eq!(apply_all(object, Value::Array(shift)), Err(413));
    }

    /// Each move looks at all that it carries: a large value and many of them took a processor for minutes.
    #[test]
    fn a_large_value_is_not_carried_about_without_end() {
        let object = json!({"a": vec![0; 400_000]});
        let moves = |count: usize| {
            let way = |(from, to): (&str, &str)| json!({"op": "move", "from": from, "path": to});
            Value::Array((0..count).map(|at| way(if at % 2 == 0 { ("/a", "/b") } else { ("/b", "/a") })).collect())
        };
        assert_eq!(apply_all(object.clone(), moves(40)), Ok(object.clone()));
        assert_eq!(apply_all(object, moves(OPERATIONS)), Err(413));
        // Small ones may go where they like.
        assert_eq!(apply_all(json!({"a": 1}), moves(OPERATIONS)), Ok(json!({"a": 1})));
    }

    #[test]
    fn operations_are_counted() {
        let test = json!({"op": "test", "path": "", "value": {}});
        assert_eq!(apply_all(json!({}), Value::Array(vec![test.clone(); OPERATIONS])), Ok(json!({})));
        assert_eq!(apply_all(json!({}), Value::Array(vec![test; OPERATIONS + 1])), Err(413));
        assert_eq!(apply_all(json!({}), json!({"op": "test"})), Err(400));
    }
}
