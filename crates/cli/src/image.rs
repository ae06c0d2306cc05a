//! `knoll image`: tarballs and names, by the instance's socket for them, which only its own user and root open.

use std::{
    fs, io,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{
    arguments::{ImageArguments, ImageCommand},
    instance::{InstanceError, RunningInstance},
};

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No instance runs.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The tarball cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// The tarball.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The instance cannot be spoken to.
    #[error("speak to knoll at {}: {source}", socket.display())]
    Socket {
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The instance says no.
    #[error("{0}")]
    Refused(String),
}

/// Longest silence of the instance while it takes an image in.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs the command; returns the lines to print.
///
/// # Errors
/// When no instance runs, or it refuses.
pub fn run(arguments: &ImageArguments) -> Result<Vec<String>, ImageError> {
    let socket = RunningInstance::find(&arguments.data.data_dir)?.images;
    let answer = match &arguments.command {
        ImageCommand::Load { path, tag } => load(&socket, path, tag.as_deref())?,
        ImageCommand::List => request(&socket, "GET", "/images", 0, &mut io::empty())?,
    };
    let lines = answer["images"].as_array().into_iter().flatten();
    Ok(lines.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn load(socket: &Path, path: &Path, tag: Option<&str>) -> Result<Value, ImageError> {
    let fail = |source| ImageError::Read { path: path.display().to_string(), source };
    let mut file = fs::File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    let target = match tag {
        Some(tag) => format!("/images?tag={}", escape(tag)),
        None => "/images".to_owned(),
    };
    request(socket, "POST", &target, length, &mut file)
}

fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/@".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// One request on one connection.
fn request(
    socket: &Path,
    method: &str,
    target: &str,
    length: u64,
    body: &mut dyn io::Read,
) -> Result<Value, ImageError> {
    let mut exchange = || -> io::Result<(u16, Vec<u8>)> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: knoll\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        // A refusal may come, and the connection close, before all of the body is sent: read it all the same.
        let sent = io::copy(body, &mut stream);
        let answer = answer(BufReader::new(stream));
        if answer.is_err() { sent.and(answer) } else { answer }
    };
    let (status, body) = exchange().map_err(|source| ImageError::Socket { socket: socket.to_owned(), source })?;
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status < 300 {
        return Ok(value);
    }
    let message = value["errors"][0]["message"].as_str();
    Err(ImageError::Refused(message.map_or_else(|| format!("knoll answers {status}"), str::to_owned)))
}

fn answer(mut reader: BufReader<UnixStream>) -> io::Result<(u16, Vec<u8>)> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    let mut length = None;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(malformed());
        }
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    let mut body = Vec::new();
    reader.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body)?;
    Ok((status, body))
}
