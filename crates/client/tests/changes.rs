//! Watching for changes alone, over a server that says what the test wrote down.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use knoll_client::{
    Body, Client,
    watch::{Collection, Seen, changes},
    whole,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Answers requests in turn, and then nothing for ever; keeps what was asked.
fn server(answers: Vec<String>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = asked.clone();
    let client = Client::new(move |request: Request<Body>| {
        let (answers, kept) = (answers.clone(), kept.clone());
        async move {
            kept.lock().unwrap().push(request.uri().to_string());
            let answer = answers.lock().unwrap().pop_front();
            let Some(answer) = answer else { return std::future::pending().await };
            Ok::<_, Infallible>(Response::new(whole(answer)))
        }
    });
    (client, asked)
}

fn object(name: &str, revision: u64) -> Value {
    let fields = json!([{"manager": "kubectl", "fieldsV1": {}}]);
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "resourceVersion": revision.to_string(), "managedFields": fields}})
}

fn list(revision: u64) -> String {
    json!({"metadata": {"resourceVersion": revision.to_string(), "continue": "more"}, "items": [object("old", 1)]})
        .to_string()
}

fn lines(events: &[(&str, Value)]) -> String {
    events.iter().map(|(kind, object)| format!("{}\n", json!({"type": kind, "object": object}))).collect()
}

fn word(seen: &Seen) -> String {
    let of = |object: &Value| {
        assert!(object["metadata"]["managedFields"].is_array(), "objects come whole");
        object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
    };
    match seen {
        Seen::Listed(at) => format!("listed {at}"),
        Seen::Added(object) => format!("added {}", of(object)),
        Seen::Modified(object) => format!("modified {}", of(object)),
        Seen::Gone(object) => format!("gone {}", of(object)),
        other => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_there_is_is_not_told_and_a_gap_shows_as_another_listing() {
    let expired = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old"});
    let (client, asked) = server(vec![
        list(5),
        lines(&[("ADDED", object("a", 6)), ("MODIFIED", object("a", 7)), ("DELETED", object("a", 8))]),
        lines(&[("ADDED", object("b", 9)), ("ERROR", expired)]),
        list(20),
    ]);
    let (into, mut heard) = mpsc::channel(1);
    let collection =
        Collection { path: "/api/v1/configmaps".into(), label_selector: "a in (b)".into(), ..Collection::default() };
    let follow = changes(&client, &collection, &into, |seen| Some(word(&seen)));
    let hear = async {
        let mut all = Vec::new();
        while all.last().is_none_or(|last| last != "listed 20") {
            all.push(heard.recv().await.expect("it goes on"));
        }
        all
    };
    let all = tokio::select! {
        () = follow => panic!("it goes on while it is heard"),
        all = hear => all,
    };
    let wanted = ["listed 5", "added a", "modified a", "gone a", "Again", "added b", "Again", "listed 20"];
    assert_eq!(all, wanted);
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0], "/api/v1/configmaps?limit=1&labelSelector=a%20in%20%28b%29");
    assert!(asked[1].contains("resourceVersion=5&") && asked[2].contains("resourceVersion=8&"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_on_while_nobody_takes_what_was_read() {
    let events: Vec<(&str, Value)> = (0..50).map(|number| ("ADDED", object("a", 6 + number))).collect();
    let (client, _) = server(vec![list(5), lines(&events)]);
    let (into, mut heard) = mpsc::channel(1);
    let collection = Collection { path: "/api/v1/configmaps".into(), ..Collection::default() };
    let read = Arc::new(Mutex::new(0));
    let counted = read.clone();
    let follow = changes(&client, &collection, &into, |seen| {
        *counted.lock().unwrap() += 1;
        Some(word(&seen))
    });
    let wait = async {
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        let before = *read.lock().unwrap();
        heard.recv().await.expect("the listing");
        before
    };
    let before = tokio::select! {
        () = follow => panic!("it goes on while it is heard"),
        before = wait => before,
    };
    assert_eq!(before, 2, "one waits in the line, and one for its place there");
}
