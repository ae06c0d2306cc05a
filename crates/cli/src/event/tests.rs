use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread,
};

use super::*;

/// An admin endpoint that answers requests in this order, each of which is to be for the path it stands beside, with the
/// body beside that.
struct Script {
    socket: PathBuf,
    answering: thread::JoinHandle<()>,
}

impl Script {
    fn begin(name: &str, script: Vec<(&'static str, Value, Value)>) -> Self {
        let socket = std::env::temp_dir().join(format!("knoll-cli-{name}-{}", std::process::id()));
        let listener = UnixListener::bind(&socket).expect("a socket");
        let answering = thread::spawn(move || {
            for (expected, body, answer) in script {
                let (mut stream, _) = listener.accept().expect("a connection");
                assert_eq!(read(&stream), (expected.to_owned(), body));
                write!(stream, "HTTP/1.0 200 OK\r\n\r\n{answer}").expect("it is read");
            }
        });
        Self { socket, answering }
    }

    /// What is printed, and noted beside it.
    fn run(self, command: &EventCommand) -> (String, String) {
        let endpoint = Endpoint { socket: &self.socket, namespace: "ns" };
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let ended = endpoint.run(command, Timestamp::UNIX_EPOCH, &mut out, &mut notes);
        std::fs::remove_file(&self.socket).expect("it is there");
        ended.expect("it is done");
        self.answering.join().expect("it is as expected");
        (String::from_utf8(out).expect("text"), String::from_utf8(notes).expect("text"))
    }
}

/// Method and path of a request, and its body.
fn read(stream: &UnixStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).expect("a line");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let target = first.trim_end().trim_end_matches(" HTTP/1.0").to_owned();
    (target, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") })
}

fn dead(command: LetterCommand) -> EventCommand {
    EventCommand::Dlq { command }
}

fn all() -> Which {
    Which { offsets: Vec::new(), all: true }
}

fn of() -> Target {
    "b".parse().expect("a target")
}

/// Two pages of dead letters, of which two cannot be read.
fn pages() -> Vec<(&'static str, Value, Value)> {
    let letter = |offset: u64| json!({"offset": offset, "event": {"type": "t", "id": offset.to_string()}});
    vec![
        (
            "GET /events/broker/ns/b/dead-letters?offset=0&most=100",
            Value::Null,
            json!({"deadLetters": [letter(1)], "unreadable": [0], "next": 2}),
        ),
        (
            "GET /events/broker/ns/b/dead-letters?offset=2&most=100",
            Value::Null,
            json!({"deadLetters": [letter(3)], "unreadable": [2], "next": null}),
        ),
    ]
}

#[test]
fn dead_letters_that_cannot_be_read_are_named() {
    let (out, notes) = Script::begin("list", pages()).run(&dead(LetterCommand::List { of: of() }));
    assert_eq!(out.lines().count(), 3, "{out}");
    let lines = ["dead letter 0 cannot be read any more: drop it", "dead letter 2 cannot be read any more: drop it"];
    assert_eq!(notes.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn all_dead_letters_are_dropped_those_that_cannot_be_read_as_well() {
    let mut script = pages();
    script.push(("POST /events/broker/ns/b/drop", json!([1, 3, 0, 2]), json!({"dropped": 4})));
    let (out, _) = Script::begin("drop", script).run(&dead(LetterCommand::Drop { of: of(), which: all() }));
    assert_eq!(out, "4 dead letters are dropped\n");
}

#[test]
fn of_all_that_are_delivered_again_it_is_said_which_are_not() {
    let mut script = pages();
    let answer = json!({"redriven": 1, "orphans": {"u-1": 1}, "missing": 2});
    script.push(("POST /events/broker/ns/b/redrive?undeliverable=stays", json!([1, 3, 0, 2]), answer));
    let (out, notes) = Script::begin("redrive", script).run(&dead(LetterCommand::Redrive { of: of(), which: all() }));
    assert_eq!(out, "1 dead letters are delivered again\n");
    let lines = [
        "1 stay: the Trigger or Subscription they were for (uid u-1) is not there any more",
        "`dlq list` shows them: drop them, or send their events to the broker",
        "2 are not there or cannot be read any more: see `dlq list`",
    ];
    assert_eq!(notes.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn brokers_are_listed_of_the_namespace_or_of_all() {
    let item = |name: &str| json!({"items": [{"kind": "broker", "namespace": "ns", "name": name, "deadLetters": 3}], "next": null});
    for (all_namespaces, paths) in [
        (false, ["GET /events?namespace=ns&most=100", "GET /events?namespace=ns&most=100&after=broker/ns/a"]),
        (true, ["GET /events?most=100", "GET /events?most=100&after=broker/ns/a"]),
    ] {
        let mut first = item("a");
        first["next"] = json!("broker/ns/a");
        let script = vec![(paths[0], Value::Null, first), (paths[1], Value::Null, item("b"))];
        let (out, _) =
            Script::begin(&format!("brokers-{all_namespaces}"), script).run(&EventCommand::List { all_namespaces });
        let names: Vec<&str> = out.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["broker:ns/a", "broker:ns/b"]);
    }
}

#[test]
fn names_of_strangers_do_nothing_to_a_terminal() {
    assert_eq!(shown("s\u{1b}[2J\u{9b}1m-ö"), "s\u{fffd}[2J\u{fffd}1m-ö");
}

#[test]
fn a_span_is_before_now_and_a_time_is_itself() {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a time");
    let query = |text| since(text).expect("it is one").query(now).expect("it can be asked for");
    assert_eq!(query("10m"), "since=2026-01-02T02:54:05Z");
    assert_eq!(query("2026-01-01T00:00:00Z"), "since=2026-01-01T00:00:00Z");
    assert!(since("yesterday").is_err());
}
