//! The sample: answers `Hello $TARGET!` on `$PORT`. Only the standard library, so that one `rustc` builds it.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

fn main() -> std::io::Result<()> {
    let port: u16 = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let target = env::var("TARGET").unwrap_or_else(|_| "World".into());
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("helloworld: listening on port {port}");
    for stream in listener.incoming() {
        let (stream, target) = (stream?, target.clone());
        // A client that goes away is no concern of the next one.
        thread::Builder::new().stack_size(64 << 10).spawn(move || drop(serve(stream, &target)))?;
    }
    Ok(())
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, target: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut close = false;
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            close |= header == "connection: close";
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        let body = format!("Hello {target}!\n");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
        writer.write_all((head + &body).as_bytes())?;
        if close {
            return Ok(());
        }
    }
}
