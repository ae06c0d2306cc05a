//! A server that does on request what tests want to see done. Only the standard library, so that one `rustc` builds it.
//!
//! - `/`: `actor $TARGET`; `/env`: the environment; `/id`: user and groups; `/file?PATH`: a file
//! - `/busy?MILLISECONDS`: works that long, and answers how many did so at a time, at most
//! - `/endless`: bytes without end
//! - `/hold`: answers after `/release`; `/events`: an event at once, and another after `/release`
//! - `/socket`: a WebSocket that echoes bytes; `/fetch?URL`: asks another server
//! - `/say?WORDS`: logs; `/leave?CODE`: ends the process; `/health`: 200, and 500 after `/sicken`
//!
//! `ACTOR_SHOW=PATH` has it say what is in a file and end; `ACTOR_EXIT=CODE` ends it at once, `ACTOR_DEAF=1` keeps it from listening, `ACTOR_KEEP=MILLISECONDS` closes
//! connections that have been idle for so long.

use std::{
    env, fs,
    io::{BufRead, BufReader, Error, Read, Result, Write},
    net::{TcpListener, TcpStream},
    process,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

static BUSY: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static SICK: AtomicBool = AtomicBool::new(false);
static RELEASED: Mutex<bool> = Mutex::new(false);
static RELEASE: Condvar = Condvar::new();

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn main() -> Result<()> {
    println!("actor: start");
    let shown = variable("ACTOR_SHOW");
    if !shown.is_empty() {
        println!("actor: {}", fs::read_to_string(shown)?);
        return Ok(());
    }
    if let Ok(code) = variable("ACTOR_EXIT").parse() {
        eprintln!("actor: the configuration is nowhere to be found");
        process::exit(code);
    }
    if variable("ACTOR_DEAF") == "1" {
        loop {
            thread::park();
        }
    }
    let port: u16 = variable("PORT").parse().unwrap_or(8080);
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("actor: listening on port {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().stack_size(64 << 10).spawn(move || drop(serve(stream)))?;
    }
    Ok(())
}

struct Request {
    path: String,
    query: String,
    key: String,
    close: bool,
}

/// The next request of a connection; `None` at its end.
fn read(reader: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut request = Request { path: path.into(), query: query.into(), key: String::new(), close: false };
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "connection" => request.close = value.trim().eq_ignore_ascii_case("close"),
            "sec-websocket-key" => request.key = value.trim().into(),
            _ => {}
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok(Some(request))
}

fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    if let Ok(idle) = variable("ACTOR_KEEP").parse() {
        stream.set_read_timeout(Some(Duration::from_millis(idle)))?;
    }
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        match request.path.as_str() {
            "/events" => events(&mut writer)?,
            "/endless" => {
                writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                loop {
                    writer.write_all(&[&b"1000\r\n"[..], &[b'x'; 0x1000], b"\r\n"].concat())?;
                }
            }
            "/socket" => return echo(reader, writer, &request.key),
            _ => {
                let (status, body) = match answer(&request) {
                    Ok(body) => (200, body),
                    Err(error) => (500, format!("{error}\n")),
                };
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} x\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
                writer.write_all((head + &body).as_bytes())?;
            }
        }
        if request.close {
            break;
        }
    }
    Ok(())
}

fn answer(request: &Request) -> Result<String> {
    match request.path.as_str() {
        "/env" => Ok(env::vars().map(|(name, value)| format!("{name}={value}\n")).collect()),
        "/id" => {
            let status = fs::read_to_string("/proc/self/status")?;
            let wanted = |line: &&str| {
                ["Uid:", "Gid:", "Groups:", "NoNewPrivs:", "Seccomp:"].iter().any(|name| line.starts_with(name))
            };
            Ok(status.lines().filter(wanted).map(|line| format!("{line}\n")).collect())
        }
        "/file" => fs::read_to_string(&request.query),
        "/busy" => {
            let now = BUSY.fetch_add(1, Ordering::SeqCst) + 1;
            MOST.fetch_max(now, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(request.query.parse().unwrap_or(0)));
            BUSY.fetch_sub(1, Ordering::SeqCst);
            Ok(format!("{}\n", MOST.load(Ordering::SeqCst)))
        }
        "/hold" => {
            println!("actor: hold");
            wait_for_release();
            Ok("released\n".into())
        }
        "/release" => {
            *RELEASED.lock().map_err(|_| Error::other("poisoned"))? = true;
            RELEASE.notify_all();
            Ok("done\n".into())
        }
        "/fetch" => fetch(&request.query),
        "/say" => {
            println!("actor: {}", request.query);
            Ok("said\n".into())
        }
        "/leave" => {
            println!("actor: leaving with {}", request.query);
            process::exit(request.query.parse().unwrap_or(0));
        }
        "/health" if SICK.load(Ordering::SeqCst) => Err(Error::other("sick")),
        "/health" => Ok("well\n".into()),
        "/sicken" => {
            SICK.store(true, Ordering::SeqCst);
            Ok("done\n".into())
        }
        _ => Ok(format!("actor {}\n", variable("TARGET"))),
    }
}

fn wait_for_release() {
    let released = RELEASED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    drop(RELEASE.wait_while(released, |released| !*released));
}

fn events(writer: &mut TcpStream) -> Result<()> {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    writer.write_all((head.to_owned() + &chunk("data: first\n\n")).as_bytes())?;
    wait_for_release();
    writer.write_all((chunk("data: second\n\n") + &chunk("")).as_bytes())
}

/// Answers the WebSocket handshake and echoes whatever comes, frames and all.
fn echo(mut reader: BufReader<TcpStream>, mut writer: TcpStream, key: &str) -> Result<()> {
    let accept = base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()));
    let head =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ";
    writer.write_all(format!("{head}{accept}\r\n\r\n").as_bytes())?;
    let mut buffer = [0; 4096];
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..length])?;
    }
}

/// Asks for `http://HOST[:PORT]/PATH`; the answer's status and body.
fn fetch(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| Error::other("not http"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).unwrap_or_default();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(format!("{status}\n{body}"))
}

/// FIPS 180-1, which RFC 6455 asks for.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words: Vec<u32> =
            block.chunks_exact(4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]])).collect();
        for i in 16..80 {
            words.push((words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (mixed, constant) = match i / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
