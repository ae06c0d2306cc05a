//! A server of the test's own that events are sent to.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::Value;

use crate::until;

/// A request that came.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Its path.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
    /// Attributes of an event in structured mode, and its data.
    structured: BTreeMap<String, String>,
}

impl Received {
    /// An attribute of the event: as its header says it in binary mode, as text in structured mode; empty when it has none.
    pub fn attribute(&self, name: &str) -> &str {
        let header = self.headers.get(&format!("ce-{name}"));
        header.or_else(|| self.structured.get(name)).map_or("", String::as_str)
    }

    /// Its data as text; in structured mode JSON as it was written.
    pub fn data(&self) -> &str {
        self.structured.get("data").map_or(&self.body, String::as_str)
    }

    fn read_structured(&mut self) {
        if !self.headers.get("content-type").is_some_and(|kind| kind.starts_with("application/cloudevents+json")) {
            return;
        }
        let event: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let members = event.as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.structured = members.map(|(name, value)| (name.clone(), text(value))).collect();
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers besides the length of the body.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Reply {
    /// A status, and nothing else.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// An event of this type, made of the one that came.
    pub fn event(of: &Received, kind: &str) -> Self {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", of.attribute("id")),
            ("ce-source", "/reply"),
            ("ce-type", kind),
            ("content-type", "text/plain"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { status: 200, headers, body: format!("{}+", of.body) }
    }
}

/// The machine's address for pods.
const MACHINE: &str = "169.254.77.1";

type Answering = dyn Fn(&Received) -> Reply + Send + Sync;

/// Takes requests until it is dropped.
pub struct Sink {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    ended: Arc<AtomicBool>,
}

impl Sink {
    /// One that answers so.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn new(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(true, answer)
    }

    /// One that answers so and keeps nothing of what comes.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn forgetful(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(false, answer)
    }

    fn start(keeps: bool, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (received, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let answer: Arc<Answering> = Arc::new(answer);
        let (into, end) = (received.clone(), ended.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (into, answer) = (into.clone(), answer.clone());
                thread::spawn(move || drop(converse(stream, keeps.then_some(&*into), &*answer)));
            }
        });
        Self { address, received, ended }
    }

    /// One that takes everything.
    pub fn open() -> Self {
        Self::new(|_| Reply::status(202))
    }

    /// Its URL, at the address of the machine that pods know. Events are not sent to the machine's own.
    pub fn url(&self) -> String {
        format!("http://{MACHINE}:{}/", self.address.port())
    }

    /// What has come so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for so many requests; what came by then.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        until(&format!("{count} events, not {:?}", self.received().len()), || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // So that it looks.
        drop(TcpStream::connect(("127.0.0.1", self.address.port())));
    }
}

fn converse(stream: TcpStream, into: Option<&Mutex<Vec<Received>>>, answer: &Answering) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(received) = read(&mut reader)? {
        let Reply { status, headers, body } = answer(&received);
        if let Some(into) = into {
            into.lock().unwrap_or_else(PoisonError::into_inner).push(received);
        }
        let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        writer.write_all(format!("{head}\r\n{body}").as_bytes())?;
    }
    Ok(())
}

/// The next request of a connection; nothing at its end.
fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Received>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut received = Received { path: line.split(' ').nth(1).unwrap_or("/").to_owned(), ..Received::default() };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        received.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = received.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    received.body = String::from_utf8_lossy(&body).into_owned();
    received.read_structured();
    Ok(Some(received))
}
