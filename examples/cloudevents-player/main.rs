//! A source and sink of events to try brokers and triggers with: what it is sent is received and shown, and what it is asked to
//! send goes to the broker. It answers as the CloudEvents Player of Knative's tutorial does. Only the standard library, so that
//! one `rustc` builds it.
//!
//! - `POST /` takes an event, as a subscriber does.
//! - `POST /messages` sends one on to the broker: to `$K_SINK`, else `$BROKER_URI`, else to broker `$BROKER_NAME` (`default`) of
//!   namespace `$BROKER_NAMESPACE` (the pod's own).
//! - `GET /messages` shows the newest as JSON (`?page=0&size=10`), `DELETE /messages` forgets them all.
//! - `GET /` is a form to send with, and the list.

use std::{
    collections::{BTreeMap, VecDeque},
    env, fs,
    io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Messages that are kept; older ones are forgotten.
const KEPT: usize = 200;
/// Bytes of a line of a head, of a whole head, and of a body that are read at most.
const MOST_LINE: u64 = 64 << 10;
const MOST_HEAD: usize = 256 << 10;
const MOST_BODY: u64 = 1 << 20;
/// How deep JSON may be nested.
const MOST_DEPTH: usize = 64;
/// How long a broker may be silent.
const PATIENCE: Duration = Duration::from_secs(30);
const JSON: &str = "application/json";

fn main() -> Result<()> {
    let port: u16 = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let player = Arc::new(Player { broker: broker(), messages: Mutex::default() });
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("cloudevents-player: listening on port {port}, sending to {}", player.broker);
    for stream in listener.incoming() {
        let (stream, player) = (stream?, player.clone());
        // A client that goes away is no concern of the next one.
        thread::Builder::new().stack_size(256 << 10).spawn(move || drop(player.serve(stream)))?;
    }
    Ok(())
}

/// Where events are sent to.
fn broker() -> String {
    let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    given("K_SINK").or_else(|| given("BROKER_URI")).unwrap_or_else(|| {
        let own = || fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok();
        let namespace = given("BROKER_NAMESPACE").or_else(own).unwrap_or_else(|| "default".into());
        let name = given("BROKER_NAME").unwrap_or_else(|| "default".into());
        format!("http://broker-ingress.knative-eventing.svc.cluster.local/{namespace}/{name}")
    })
}

struct Player {
    broker: String,
    /// Newest first, as they are shown.
    messages: Mutex<VecDeque<String>>,
}

/// A request, or an answer's status line with what follows it.
struct Message {
    /// Words of the first line.
    first: Vec<String>,
    /// Names in lower case.
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer(u16, &'static str, String);

impl Player {
    /// Answers the requests of one connection.
    fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = Message::read(&mut reader)? {
            let Answer(status, kind, body) = self.answer(&request);
            let head = format!("HTTP/1.1 {status} {}\r\ncontent-type: {kind}\r\n", reason(status));
            writer.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
            if request.header("connection").eq_ignore_ascii_case("close") {
                break;
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Message) -> Answer {
        let text = |status, text: &str| Answer(status, "text/plain", format!("{text}\n"));
        let [method, target, ..] = &request.first[..] else { return text(400, "this is no request") };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match (method.as_str(), path) {
            ("GET", "/") => Answer(200, "text/html; charset=utf-8", PAGE.into()),
            ("GET", "/messages") => Answer(200, JSON, self.list(query)),
            ("DELETE", "/messages") => {
                self.messages().clear();
                Answer(202, JSON, String::new())
            }
            ("POST", "/" | "/messages") => match event(request) {
                Err(why) => text(400, why),
                Ok(event) => {
                    let kind = if path == "/" { "RECEIVED" } else { self.send(request) };
                    println!("cloudevents-player: {kind} {}", event.get("id").map_or("", String::as_str));
                    self.keep(&event, kind);
                    Answer(202, JSON, String::new())
                }
            },
            (_, "/" | "/messages") => text(405, "GET and POST are known here"),
            _ => text(404, "/ and /messages are known here"),
        }
    }

    /// Sends an event on as it came; how that went.
    fn send(&self, event: &Message) -> &'static str {
        match forward(&self.broker, event) {
            Ok(status) if status < 400 => "SENT",
            Ok(status) => {
                println!("cloudevents-player: {} answered {status}", self.broker);
                "FAILED"
            }
            Err(error) => {
                println!("cloudevents-player: {}: {error}", self.broker);
                "FAILED"
            }
        }
    }

    /// Keeps a message as the list shows it. `event`: attributes and data as JSON.
    fn keep(&self, event: &BTreeMap<String, String>, kind: &str) {
        let member = |name: &str| event.get(name).map_or("null", String::as_str);
        let context = ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"];
        let extensions = event.iter().filter(|(name, _)| !context.contains(&name.as_str()));
        let extensions: Vec<_> = extensions.map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
        let message = format!(
            r#"{{"id":{},"receivedAt":{},"subject":{},"eventType":{},"source":{},"extensions":{{{}}},"data":{},"type":"{kind}"}}"#,
            member("id"),
            quoted(&now()),
            member("subject"),
            member("type"),
            member("source"),
            extensions.join(","),
            event.get("data").or_else(|| event.get("data_base64")).map_or("null", String::as_str),
        );
        let mut messages = self.messages();
        messages.push_front(message);
        messages.truncate(KEPT);
    }

    fn list(&self, query: &str) -> String {
        let parameter = |wanted: &str, otherwise: usize| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse().ok()).unwrap_or(otherwise)
        };
        let (page, size): (usize, usize) = (parameter("page", 0), parameter("size", 10));
        let messages = self.messages();
        let shown: Vec<&str> = messages.iter().skip(page.saturating_mul(size)).take(size).map(String::as_str).collect();
        format!("[{}]\n", shown.join(","))
    }

    fn messages(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Message {
    /// The next one of a connection; nothing at its end.
    fn read(reader: &mut BufReader<TcpStream>) -> Result<Option<Self>> {
        let first = line(reader)?;
        if first.is_empty() {
            return Ok(None);
        }
        let (mut headers, mut size) = (BTreeMap::new(), first.len());
        loop {
            let line = line(reader)?;
            size += line.len();
            if size > MOST_HEAD {
                return Err(Error::new(ErrorKind::InvalidData, "the head is too long"));
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut message = Self { first: first.split_whitespace().map(str::to_owned).collect(), headers, body: Vec::new() };
        message.body = message.body_of(reader)?;
        Ok(Some(message))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn body_of(&self, reader: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
        let invalid = |what| Error::new(ErrorKind::InvalidData, what);
        let mut body = Vec::new();
        let mut take = |reader: &mut BufReader<TcpStream>, length: u64| {
            if body.len() as u64 + length > MOST_BODY {
                return Err(invalid("the body is too long"));
            }
            let begin = body.len();
            body.resize(begin + length as usize, 0);
            reader.read_exact(&mut body[begin..])
        };
        if self.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            loop {
                let length = line(reader)?;
                let length = length.trim_end().split(';').next().unwrap_or_default();
                let length = u64::from_str_radix(length, 16).map_err(|_| invalid("a chunk has no length"))?;
                take(reader, length)?;
                line(reader)?;
                if length == 0 {
                    return Ok(body);
                }
            }
        }
        take(reader, self.header("content-length").parse().unwrap_or(0))?;
        Ok(body)
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    reader.by_ref().take(MOST_LINE).read_line(&mut line)?;
    Ok(line)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        404 => "Not Found",
        _ => "Method Not Allowed",
    }
}

/// Posts an event on in the mode that it came in; the status that is answered.
fn forward(url: &str, event: &Message) -> Result<u16> {
    let rest = url.strip_prefix("http://").ok_or_else(|| Error::new(ErrorKind::Unsupported, "only http is known"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("POST /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n", event.body.len());
    for (name, value) in &event.headers {
        if name.starts_with("ce-") || name == "content-type" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    stream.write_all(&[format!("{head}\r\n").as_bytes(), &event.body].concat())?;
    let answer = Message::read(&mut BufReader::new(stream))?.ok_or(ErrorKind::UnexpectedEof)?;
    answer.first.get(1).and_then(|status| status.parse().ok()).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Attributes of the event of a request, and its data, each as JSON.
fn event(request: &Message) -> std::result::Result<BTreeMap<String, String>, &'static str> {
    let kind = request.header("content-type").to_ascii_lowercase();
    let event = if kind.starts_with("application/cloudevents+json") {
        members(&request.body).ok_or("the body is no JSON object")?
    } else {
        let attribute = |(name, value): (&String, &String)| Some((name.strip_prefix("ce-")?.to_owned(), quoted(value)));
        let mut event: BTreeMap<_, _> = request.headers.iter().filter_map(attribute).collect();
        if !request.body.is_empty() {
            let text = String::from_utf8_lossy(&request.body);
            let is_json = kind.starts_with(JSON) && value(&request.body, 0).is_some_and(|rest| trim(rest).is_empty());
            event.insert("data".into(), if is_json { text.trim().to_owned() } else { quoted(&text) });
        }
        event
    };
    match ["id", "source", "specversion", "type"].iter().all(|name| event.contains_key(*name)) {
        true => Ok(event),
        false => Err("an event has id, source, specversion and type"),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character < ' ' => quoted.push_str(&format!("\\u{:04x}", character as u32)),
            character => quoted.push(character),
        }
    }
    quoted + "\""
}

/// Members of a JSON object, their values as they are written.
fn members(json: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut members = BTreeMap::new();
    let mut rest = trim(trim(json).strip_prefix(b"{")?);
    while !rest.starts_with(b"}") {
        let after = string(rest)?;
        let name = String::from_utf8(rest[1..rest.len() - after.len() - 1].to_vec()).ok()?;
        let begin = trim(trim(after).strip_prefix(b":")?);
        let after = value(begin, 1)?;
        members.insert(name, String::from_utf8(begin[..begin.len() - after.len()].to_vec()).ok()?);
        rest = trim(after);
        match rest.strip_prefix(b",") {
            Some(next) => rest = trim(next),
            None if rest.starts_with(b"}") => {}
            None => return None,
        }
    }
    trim(&rest[1..]).is_empty().then_some(members)
}

/// What follows a value of JSON.
fn value(json: &[u8], depth: usize) -> Option<&[u8]> {
    let json = trim(json);
    match json.first()? {
        b'"' => string(json),
        b'{' | b'[' if depth >= MOST_DEPTH => None,
        b'{' => sequence(json, b'}', |item| value(trim(string(item)?).strip_prefix(b":")?, depth + 1)),
        b'[' => sequence(json, b']', |item| value(item, depth + 1)),
        _ => {
            let end = json.iter().position(|byte| b",]} \t\r\n".contains(byte)).unwrap_or(json.len());
            let word = std::str::from_utf8(&json[..end]).ok()?;
            let is_number = word.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && word.parse::<f64>().is_ok();
            (is_number || ["true", "false", "null"].contains(&word)).then(|| &json[end..])
        }
    }
}

/// What follows a sequence of items between brackets.
fn sequence<'a>(json: &'a [u8], end: u8, item: impl Fn(&'a [u8]) -> Option<&'a [u8]>) -> Option<&'a [u8]> {
    let mut rest = trim(&json[1..]);
    if rest.first() == Some(&end) {
        return Some(&rest[1..]);
    }
    loop {
        rest = trim(item(rest)?);
        match rest.first()? {
            b',' => rest = trim(&rest[1..]),
            byte if *byte == end => return Some(&rest[1..]),
            _ => return None,
        }
    }
}

/// What follows a string.
fn string(json: &[u8]) -> Option<&[u8]> {
    let mut rest = json.strip_prefix(b"\"")?;
    loop {
        match rest.first()? {
            b'"' => return Some(&rest[1..]),
            b'\\' => rest = rest.get(2..)?,
            byte if *byte < b' ' => return None,
            _ => rest = &rest[1..],
        }
    }
}

fn trim(json: &[u8]) -> &[u8] {
    json.trim_ascii_start()
}

/// The time of day in UTC, as RFC 3339 has it.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days are counted from a first of March, so that a leap day is the last one of its year.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

const PAGE: &str = r#"<!doctype html>
<title>CloudEvents Player</title>
<style>body{font:16px sans-serif;margin:2em}label{display:block;margin:.5em 0}input{width:24em}td,th{padding:.2em 1em;text-align:left}</style>
<h1>Create event</h1>
<form id=f>
<label>Event ID <input name=id required></label>
<label>Event Type <input name=type required></label>
<label>Event Source <input name=source required></label>
<label>Specversion <input name=specversion value=1.0 required></label>
<label>Message <input name=data value='{"message":"Hello"}'></label>
<button>Send event</button></form>
<h1>Activity</h1><table><thead><tr><th>Event ID<th>Type<th>Source<th>Status<th>Message</thead><tbody id=t></table>
<script>
const f=document.getElementById('f'),t=document.getElementById('t');
const id=()=>f.id.value=Math.random().toString(16).slice(2);
async function show(){const all=await (await fetch('/messages?size=200')).json();t.replaceChildren(...all.map(m=>{
const r=document.createElement('tr');for(const x of [m.id,m.eventType,m.source,m.type,JSON.stringify(m.data)]){
const d=document.createElement('td');d.textContent=x;r.append(d)}return r}))}
f.onsubmit=async e=>{e.preventDefault();const h={'content-type':'application/json'};
for(const n of ['id','type','source','specversion'])h['ce-'+n]=f[n].value;
await fetch('/messages',{method:'POST',headers:h,body:f.data.value});id();show()};
id();show();setInterval(show,2000);
</script>
"#;
