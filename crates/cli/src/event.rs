//! `knoll event`: sends events, looks at those that are kept, and at those that nobody took, through the admin endpoint's
//! local socket.

mod arguments;
mod build;
mod graph;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub use self::arguments::{EventArguments, EventCommand, Fields, LetterCommand, Since, Target, Which};
use crate::{
    admin::{self, AdminError, Asked},
    exit::Exit,
    instance::{InstanceError, RunningInstance},
};

/// How often it is looked for new events while they are followed.
const LOOK: Duration = Duration::from_millis(250);
/// Events and dead letters in one answer.
const MOST: u64 = 100;
/// Dead letters that something is asked for at a time.
const AT_A_TIME: usize = 100;

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// No instance runs.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The endpoint cannot be spoken to, or says no.
    #[error(transparent)]
    Endpoint(#[from] AdminError),
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// The endpoint answers what this version does not know.
    #[error("the instance answers what this command does not understand: {0}")]
    Unknown(#[from] serde_json::Error),
    /// Nothing can be printed.
    #[error("print")]
    Print(#[from] io::Error),
}

/// Runs the command; prints to `out`.
///
/// # Errors
/// When no instance runs, it refuses, or the arguments make no sense.
pub fn run(arguments: &EventArguments, now: Timestamp, out: &mut dyn Write) -> Result<(), EventError> {
    if let EventCommand::Build { fields, output } = &arguments.command {
        return print(out, &build::event(fields, now)?, *output);
    }
    let socket = RunningInstance::find(&arguments.data.data_dir)?.admin;
    let endpoint = Endpoint { socket: &socket, namespace: &arguments.namespace };
    endpoint.run(&arguments.command, now, out, &mut io::stderr())
}

/// How the program ends after this error.
pub fn exit_of(error: &EventError) -> Exit {
    match error {
        EventError::Usage(_) => Exit::Usage,
        EventError::Instance(_) => Exit::Unavailable,
        EventError::Endpoint(_) | EventError::Unknown(_) | EventError::Print(_) => Exit::Failure,
    }
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A line for each.
    Human,
    /// JSON; events in the JSON format of CloudEvents, a line for each.
    Json,
}

struct Endpoint<'a> {
    socket: &'a Path,
    namespace: &'a str,
}

impl Endpoint<'_> {
    /// Prints to `out`, and to `notes` what of all that is asked for cannot be had.
    fn run(
        &self,
        command: &EventCommand,
        now: Timestamp,
        out: &mut dyn Write,
        notes: &mut dyn Write,
    ) -> Result<(), EventError> {
        match command {
            EventCommand::List { all_namespaces } => self.list(*all_namespaces, out),
            EventCommand::Build { .. } => Ok(()),
            EventCommand::Send { to, fields } => self.send(to, &build::event(fields, now)?, out),
            EventCommand::Tail { of, since, follow, output } => {
                let since = since.given().unwrap_or(Since::Offset(0));
                self.tail(of, since, now, *follow, *output, out)
            }
            EventCommand::Replay { of, to, since } => self.replay(of, to, since.given(), now, out),
            EventCommand::Graph { all_namespaces, output } => self.graph(*all_namespaces, *output, out),
            EventCommand::Dlq { command } => self.letters(command, out, notes),
        }
    }

    fn path(&self, of: &Target, verb: &str) -> String {
        let Target { kind, name } = of;
        format!("/events/{kind}/{}/{name}{verb}", self.namespace)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, EventError> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let asked = Asked { method, path, content_type: "application/json", body: body.as_bytes() };
        let answer = admin::ask(self.socket, &asked)?;
        Ok(if answer.is_empty() { Value::Null } else { serde_json::from_str(&answer)? })
    }

    fn list(&self, all_namespaces: bool, out: &mut dyn Write) -> Result<(), EventError> {
        let row = |of: &str, to: &str, numbers: [String; 4]| {
            let [lag, under_way, delivered, dead] = numbers;
            format!("{of:<40} {to:<32} {lag:>9} {under_way:>9} {delivered:>10} {dead:>8}")
        };
        writeln!(out, "{}", row("OF", "TO", ["LAG", "IN FLIGHT", "DELIVERED", "DEAD"].map(str::to_owned)))?;
        let of = if all_namespaces { String::new() } else { format!("namespace={}&", self.namespace) };
        let mut path = format!("/events?{of}most={MOST}");
        loop {
            let page = self.ask("GET", &path, &Value::Null)?;
            for item in list(&page["items"]) {
                let name = format!("{}:{}/{}", text(item, "kind"), text(item, "namespace"), text(item, "name"));
                let dead = item["deadLetters"].to_string();
                writeln!(out, "{}", row(&name, "", [String::new(), String::new(), String::new(), dead]))?;
                for to in list(&item["subscriptions"]) {
                    let numbers = ["lag", "inFlight", "delivered", "deadLetters"].map(|field| to[field].to_string());
                    writeln!(out, "{}", row("", &shown(text(to, "name")), numbers))?;
                }
            }
            // Names of objects need no escapes.
            let Some(next) = page["next"].as_str() else { return Ok(()) };
            path = format!("/events?{of}most={MOST}&after={next}");
        }
    }

    fn send(&self, to: &Target, event: &Value, out: &mut dyn Write) -> Result<(), EventError> {
        let (path, body) = (self.path(to, ""), event.to_string());
        let content_type = "application/cloudevents+json";
        admin::ask(self.socket, &Asked { method: "POST", path: &path, content_type, body: body.as_bytes() })?;
        writeln!(out, "event (ID: {}) has been sent", text(event, "id"))?;
        Ok(())
    }

    fn tail(
        &self,
        of: &Target,
        since: Since,
        now: Timestamp,
        follow: bool,
        output: Output,
        out: &mut dyn Write,
    ) -> Result<(), EventError> {
        let mut from = since.query(now)?;
        loop {
            let history = self.ask("GET", &self.path(of, &format!("/history?{from}&most={MOST}")), &Value::Null)?;
            for missing in list(&history["missing"]) {
                writeln!(io::stderr(), "events {} to {} are not there any more", missing[0], missing[1])?;
            }
            let events = list(&history["events"]);
            for kept in events {
                print_kept(out, kept, output)?;
            }
            out.flush()?;
            let next = format!("offset={}", history["next"]);
            if events.is_empty() && next == from {
                if !follow {
                    return Ok(());
                }
                std::thread::sleep(LOOK);
            }
            from = next;
        }
    }

    fn replay(
        &self,
        of: &Target,
        to: &str,
        since: Option<Since>,
        now: Timestamp,
        out: &mut dyn Write,
    ) -> Result<(), EventError> {
        let since = since.ok_or_else(|| EventError::Usage("say from where: --since or --offset".to_owned()))?;
        let path = self.path(of, &format!("/replay?subscription={to}&{}", since.query(now)?));
        let answer = self.ask("POST", &path, &Value::Null)?;
        writeln!(out, "{} events are delivered to {to} once more", answer["replayed"])?;
        Ok(())
    }

    fn graph(&self, all_namespaces: bool, output: Output, out: &mut dyn Write) -> Result<(), EventError> {
        let path = if all_namespaces { "/graph".to_owned() } else { format!("/graph?namespace={}", self.namespace) };
        let graph = self.ask("GET", &path, &Value::Null)?;
        match output {
            Output::Json => writeln!(out, "{graph:#}")?,
            Output::Human => graph::print(&graph, out)?,
        }
        Ok(())
    }

    fn letters(&self, command: &LetterCommand, out: &mut dyn Write, notes: &mut dyn Write) -> Result<(), EventError> {
        match command {
            LetterCommand::List { of } => {
                writeln!(out, "{:<8} {:<24} {:<24} {:<5} {:<28} ID", "OFFSET", "TIME", "FOR", "CODE", "TYPE")?;
                let unreadable = self.each_letter(of, |letter| {
                    let event = &letter["event"];
                    let (offset, time, whose) = (letter["offset"].to_string(), text(letter, "time"), whose(letter));
                    let code = event["knativeerrorcode"].to_string();
                    let (kind, id) = (text(event, "type"), text(event, "id"));
                    writeln!(out, "{offset:<8} {time:<24} {whose:<24} {code:<5} {kind:<28} {id}")
                })?;
                for offset in unreadable {
                    writeln!(notes, "dead letter {offset} cannot be read any more: drop it")?;
                }
                Ok(())
            }
            LetterCommand::Show { of, offset } => {
                let page =
                    self.ask("GET", &self.path(of, &format!("/dead-letters?offset={offset}&most=1")), &Value::Null)?;
                let letter = list(&page["deadLetters"]).first().filter(|letter| letter["offset"] == *offset);
                let is_unreadable = list(&page["unreadable"]).iter().any(|unreadable| unreadable == offset);
                let missing = || {
                    EventError::Usage(match is_unreadable {
                        true => format!("dead letter {offset} cannot be read any more: drop it"),
                        false => format!("there is no dead letter {offset}"),
                    })
                };
                writeln!(out, "{:#}", letter.ok_or_else(missing)?)?;
                Ok(())
            }
            LetterCommand::Redrive { of, which } => {
                let redriven = self.redrive(of, which)?;
                writeln!(out, "{} dead letters are delivered again", redriven.count)?;
                redriven.tell_what_stays(notes)
            }
            LetterCommand::Drop { of, which } => {
                let offsets = match which.all {
                    true => self.letters_there_are(of)?,
                    false => which.offsets.clone(),
                };
                for some in offsets.chunks(AT_A_TIME) {
                    self.ask("POST", &self.path(of, "/drop"), &json!(some))?;
                }
                writeln!(out, "{} dead letters are dropped", offsets.len())?;
                Ok(())
            }
        }
    }

    /// Has dead letters delivered again, as many as may be at a time. Of all those there are, some that cannot be hold up no
    /// other.
    fn redrive(&self, of: &Target, which: &Which) -> Result<Redriven, EventError> {
        let (offsets, verb) = match which.all {
            true => (self.letters_there_are(of)?, "/redrive?undeliverable=stays"),
            false => (which.offsets.clone(), "/redrive"),
        };
        let mut redriven = Redriven::default();
        for some in offsets.chunks(AT_A_TIME) {
            redriven.add(&self.ask("POST", &self.path(of, verb), &json!(some))?);
        }
        Ok(redriven)
    }

    /// The offsets of all dead letters, also of those that cannot be read.
    fn letters_there_are(&self, of: &Target) -> Result<Vec<u64>, EventError> {
        let mut offsets = Vec::new();
        let unreadable = self.each_letter(of, |letter| {
            offsets.extend(letter["offset"].as_u64());
            Ok(())
        })?;
        offsets.extend(unreadable);
        Ok(offsets)
    }

    /// Goes through all dead letters. The offsets of those that cannot be read.
    fn each_letter(&self, of: &Target, mut each: impl FnMut(&Value) -> io::Result<()>) -> Result<Vec<u64>, EventError> {
        let (mut next, mut unreadable) = (json!(0), Vec::new());
        while !next.is_null() {
            let page =
                self.ask("GET", &self.path(of, &format!("/dead-letters?offset={next}&most={MOST}")), &Value::Null)?;
            for letter in list(&page["deadLetters"]) {
                each(letter)?;
            }
            unreadable.extend(list(&page["unreadable"]).iter().filter_map(Value::as_u64));
            next = page["next"].clone();
        }
        Ok(unreadable)
    }
}

/// What became of dead letters that were to be delivered again.
#[derive(Default)]
struct Redriven {
    count: u64,
    /// Those that stay, by the uid of the Trigger or Subscription that is not there any more.
    orphans: BTreeMap<String, u64>,
    /// Those that are not there, or cannot be read, any more.
    missing: u64,
}

impl Redriven {
    /// Adds what the endpoint answered.
    fn add(&mut self, answer: &Value) {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        self.count += number(&answer["redriven"]);
        self.missing += number(&answer["missing"]);
        for (uid, count) in answer["orphans"].as_object().into_iter().flatten() {
            *self.orphans.entry(uid.clone()).or_default() += number(count);
        }
    }

    fn tell_what_stays(&self, notes: &mut dyn Write) -> Result<(), EventError> {
        for (uid, count) in &self.orphans {
            let uid = shown(uid);
            writeln!(
                notes,
                "{count} stay: the Trigger or Subscription they were for (uid {uid}) is not there any more"
            )?;
        }
        if !self.orphans.is_empty() {
            writeln!(notes, "`dlq list` shows them: drop them, or send their events to the broker")?;
        }
        if self.missing > 0 {
            writeln!(notes, "{} are not there or cannot be read any more: see `dlq list`", self.missing)?;
        }
        Ok(())
    }
}

impl Since {
    fn query(self, now: Timestamp) -> Result<String, EventError> {
        let since = match self {
            Self::Offset(offset) => return Ok(format!("offset={offset}")),
            Self::Time(time) => time,
            Self::Ago(span) => now.checked_sub(span).unwrap_or(Timestamp::UNIX_EPOCH),
        };
        Ok(format!("since={since}"))
    }
}

/// What `--since` means: a time, or a span before now.
fn since(text: &str) -> Result<Since, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Since::Time(time));
    }
    let span = text.parse::<SignedDuration>().map_err(|e| format!("neither a time nor a span such as 10m: {e}"))?;
    Ok(Since::Ago(span))
}

fn print(out: &mut dyn Write, event: &Value, output: Output) -> Result<(), EventError> {
    match output {
        Output::Json => writeln!(out, "{event}")?,
        Output::Human => writeln!(out, "{event:#}")?,
    }
    Ok(())
}

fn print_kept(out: &mut dyn Write, kept: &Value, output: Output) -> io::Result<()> {
    let event = &kept["event"];
    match output {
        Output::Json => writeln!(out, "{event}"),
        Output::Human => {
            let (time, kind, source, id) =
                (text(kept, "time"), text(event, "type"), text(event, "source"), text(event, "id"));
            let data = if event["data"].is_null() { &event["data_base64"] } else { &event["data"] };
            writeln!(out, "{} {time} {kind} {source} {id} {data}", kept["offset"])
        }
    }
}

/// Whose dead letter it is: by name, while that is known.
fn whose(letter: &Value) -> String {
    shown(letter["subscription"].as_str().unwrap_or_else(|| text(letter, "subscriptionUid")))
}

/// Text of somebody's, fit for a terminal: names in a channel's spec are whatever its author wrote.
fn shown(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;
