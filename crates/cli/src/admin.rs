//! `knoll admin`: looks at the running instance through its admin endpoint's local socket.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    arguments::{AdminArguments, AdminCommand},
    instance::{InstanceError, RunningInstance},
};

/// Longest silence of the endpoint.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No instance runs.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The endpoint cannot be spoken to.
    #[error("speak to the admin endpoint at {socket}")]
    Socket {
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The endpoint says no.
    #[error("{0}")]
    Refused(String),
}

/// The local socket of the admin endpoint of a role that is a process of its own.
pub fn role_socket(role: &str) -> PathBuf {
    PathBuf::from(format!("/run/knoll/{role}-admin.sock"))
}

/// Runs the command; returns what to print.
///
/// # Errors
/// When no instance runs, it does not answer, or it answers anything but success.
pub fn run(arguments: &AdminArguments) -> Result<String, AdminError> {
    let socket = match &arguments.role {
        Some(role) => role_socket(role),
        None => RunningInstance::find(&arguments.data.data_dir)?.admin,
    };
    let (method, path, body) = match &arguments.command {
        AdminCommand::Ready => ("GET", "/readyz?verbose", ""),
        AdminCommand::Metrics => ("GET", "/metrics", ""),
        AdminCommand::Get { path } => ("GET", path.as_str(), ""),
        AdminCommand::LogLevel { level: None } => ("GET", "/log-level", ""),
        AdminCommand::LogLevel { level: Some(level) } => ("PUT", "/log-level", level.as_str()),
    };
    ask(&socket, &Asked { method, path, content_type: "text/plain", body: body.as_bytes() })
}

/// What the endpoint is asked.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
}

/// Asks the endpoint; the body of its answer when that is a success.
pub(crate) fn ask(socket: &Path, asked: &Asked<'_>) -> Result<String, AdminError> {
    let answer = request(socket, asked).map_err(|source| AdminError::Socket { socket: socket.to_owned(), source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') { Ok(body.to_owned()) } else { Err(AdminError::Refused(body.trim_end().to_owned())) }
}

/// One request on one connection. HTTP/1.0, so that the answer ends where the connection does.
fn request(socket: &Path, asked: &Asked<'_>) -> io::Result<String> {
    let Asked { method, path, content_type, body } = asked;
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path has no blanks"));
    }
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let content = format!("content-type: {content_type}\r\ncontent-length: {length}");
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: knoll\r\n{content}\r\n\r\n")?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
