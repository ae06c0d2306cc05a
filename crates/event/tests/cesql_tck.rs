//! The test kit of the CESQL specification, as sdk-go keeps it.
//!
//! It is fetched, not kept here: `tools/build cesql-tck` does that, and `scripts/test` runs this. `KNOLL_CESQL_TCK` names the
//! folder of its YAML files, `test/tck` of the Go module `github.com/cloudevents/sdk-go/sql/v2`.

use std::{env, fs, path::PathBuf};

use knoll_event::cesql::{EvaluationError, Expression, Value};
use serde_json::Value as Json;

/// What a case wants of the event, where it does not care.
const EVENT: &str = r#"{"specversion": "1.0", "id": "1", "source": "http://localhost/source", "type": "a.type"}"#;

/// How many cases it has, so that none goes missing unseen.
const CASES: usize = 275;

#[test]
#[ignore = "needs the test kit: KNOLL_CESQL_TCK names its folder"]
#[expect(clippy::disallowed_methods, reason = "the kit is a folder of files")]
fn the_test_kit_passes() {
    let folder = PathBuf::from(env::var_os("KNOLL_CESQL_TCK").expect("KNOLL_CESQL_TCK names the folder of the kit"));
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "{} has no YAML files", folder.display());
    let (mut failures, mut count) = (Vec::new(), 0);
    for path in files {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a file of text");
        let kit: Json = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let cases = kit["tests"].as_array().expect("a list of cases");
        let failed: Vec<String> = cases.iter().filter_map(failure).collect();
        println!("{name}: {} of {} pass", cases.len() - failed.len(), cases.len());
        count += cases.len();
        failures.extend(failed.into_iter().map(|failure| format!("{name}: {failure}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(count, CASES, "cases of the kit");
}

/// How a case fails, if it does.
fn failure(case: &Json) -> Option<String> {
    let text = plain(&case["expression"]);
    let wanted = case["error"].as_str();
    let found = match Expression::parse(&text) {
        Err(_) if wanted == Some("parse") => return None,
        Err(error) => format!("refused: {error}"),
        Ok(expression) => {
            let event = event(case);
            let evaluation = expression.evaluate(&|name| event.get(name).map(value));
            let error = evaluation.error.as_ref().map(class);
            if error == wanted && evaluation.value == value(&case["result"]) {
                return None;
            }
            format!("{evaluation:?}")
        }
    };
    Some(format!("{}: {text}: wanted {} and error {wanted:?}, found {found}", case["name"], case["result"]))
}

fn event(case: &Json) -> Json {
    let given = Some(&case["event"]).filter(|event| event.is_object()).cloned();
    let mut event = given.unwrap_or_else(|| serde_json::from_str(EVENT).expect("JSON"));
    for (name, value) in case["eventOverrides"].as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    event
}

/// An expression that YAML took for a number or a truth.
fn plain(expression: &Json) -> String {
    expression.as_str().map_or_else(|| expression.to_string(), str::to_owned)
}

fn value(json: &Json) -> Value<'_> {
    match json {
        Json::String(text) => Value::from(&**text),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => {
            let number = number.as_i64().and_then(|number| i32::try_from(number).ok());
            Value::from(number.expect("a number of 32 bits"))
        }
        other => panic!("{other} is no value of an attribute"),
    }
}

/// The name that the kit has for an error.
fn class(error: &EvaluationError<'_>) -> &'static str {
    match error {
        EvaluationError::Math { .. } => "math",
        EvaluationError::Cast { .. } => "cast",
        EvaluationError::MissingAttribute { .. } => "missingAttribute",
        EvaluationError::MissingFunction { .. } => "missingFunction",
        EvaluationError::FunctionEvaluation { .. } => "functionEvaluation",
        EvaluationError::Generic => "generic",
    }
}
