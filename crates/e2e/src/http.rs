//! Plain HTTP/1.1.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(150);

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A header's value; empty when there is none.
    pub fn header(&self, wanted: &str) -> &str {
        let found = self.headers.iter().find(|(name, _)| name == wanted);
        found.map_or("", |(_, value)| value)
    }
}

/// Asks `address` for `path` on `host`.
///
/// # Errors
/// When the connection fails or the answer is not HTTP.
pub fn get(address: &str, host: &str, path: &str) -> io::Result<Answer> {
    request(address, host, "GET", path, &[], "")
}

/// Sends a request to `address`, on a connection of its own.
///
/// # Errors
/// When the connection fails or the answer is not HTTP.
pub fn request(
    address: &str,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let mut connection = Connection::open(address)?;
    let mut all = vec![("connection", "close")];
    all.extend(headers);
    connection.send(host, method, path, &all, body)?;
    connection.answer()
}

/// A connection that is kept.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to `address`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends a request; a `content-length` is added when there is a body.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(
        &mut self,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.write(format!("{head}\r\n{body}").as_bytes())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads as many bytes as `buffer` holds.
    ///
    /// # Errors
    /// When they do not come.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buffer)
    }

    /// Waits for an answer; whether there comes any byte of one before the connection ends.
    ///
    /// # Errors
    /// When nothing comes in time.
    pub fn begins(&mut self) -> io::Result<bool> {
        match self.reader.fill_buf() {
            Ok(bytes) => Ok(!bytes.is_empty()),
            Err(error) if is_end(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads one chunk of a chunked body; empty at the end.
    ///
    /// # Errors
    /// When the answer is not HTTP.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(|_| malformed("a chunk's length"))?;
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes)?;
        self.reader.read_line(&mut String::new())?;
        Ok(bytes)
    }

    /// Reads the head of an answer; its body is left empty.
    ///
    /// # Errors
    /// When the answer is not HTTP.
    pub fn head(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| malformed(&line))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(malformed("the head ends early"));
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
                None => return Ok(Answer { status, headers, body: String::new() }),
            }
        }
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// When the answer is not HTTP.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head()?;
        let mut bytes = Vec::new();
        if answer.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    break;
                }
                bytes.extend(chunk);
            }
        } else if !answer.header("content-length").is_empty() {
            let length = answer.header("content-length").parse().map_err(|_| malformed("content-length"))?;
            bytes.resize(length, 0);
            self.reader.read_exact(&mut bytes)?;
        } else {
            self.reader.read_to_end(&mut bytes)?;
        }
        answer.body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(answer)
    }
}

/// Whether an error says that the other side has closed the connection.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not HTTP: {what:?}"))
}
