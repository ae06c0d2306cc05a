//! `knoll image`: tarballs and names, over the registry's own endpoint.

use std::{
    fs, io,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use serde_json::Value;

use crate::{
    arguments::{ImageArguments, ImageCommand},
    instance::{Instance, InstanceError},
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
    /// The registry cannot be spoken to.
    #[error("speak to the registry at {address}: {source}")]
    Registry {
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The registry says no.
    #[error("{0}")]
    Refused(String),
}

/// Longest silence of the registry while it takes an image in.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs the command; returns the lines to print.
///
/// # Errors
/// When no instance runs, or it refuses.
pub fn run(arguments: &ImageArguments) -> Result<Vec<String>, ImageError> {
    let address = Instance::find(&arguments.data.data_dir)?.registry;
    let answer = match &arguments.command {
        ImageCommand::Load { path, tag } => load(address, path, tag.as_deref())?,
        ImageCommand::List => request(address, "GET", "/knoll/images", 0, &mut io::empty())?,
    };
    let lines = answer["images"].as_array().into_iter().flatten();
    Ok(lines.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn load(address: SocketAddr, path: &Path, tag: Option<&str>) -> Result<Value, ImageError> {
    let fail = |source| ImageError::Read { path: path.display().to_string(), source };
    let mut file = fs::File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    let target = match tag {
        Some(tag) => format!("/knoll/images?tag={}", escape(tag)),
        None => "/knoll/images".to_owned(),
    };
    request(address, "POST", &target, length, &mut file)
}

fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/@".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// One request on one connection.
fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    length: u64,
    body: &mut dyn io::Read,
) -> Result<Value, ImageError> {
    let mut exchange = || -> io::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        // A refusal may come, and the connection close, before all of the body is sent: read it all the same.
        let sent = io::copy(body, &mut stream);
        let answer = answer(BufReader::new(stream));
        if answer.is_err() { sent.and(answer) } else { answer }
    };
    let (status, body) = exchange().map_err(|source| ImageError::Registry { address, source })?;
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status < 300 {
        return Ok(value);
    }
    let message = value["errors"][0]["message"].as_str();
    Err(ImageError::Refused(message.map_or_else(|| format!("the registry answers {status}"), str::to_owned)))
}

fn answer(mut reader: BufReader<TcpStream>) -> io::Result<(u16, Vec<u8>)> {
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
