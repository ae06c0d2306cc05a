//! Telling a service manager that the instance is ready, as `sd_notify(3)` describes it.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// Says that everything is ready to whoever started this process and wants to know.
pub(crate) fn ready() {
    let Ok(name) = env::var("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&name, b"READY=1") {
        tracing::warn!(%error, name, "tell the service manager that the instance is ready");
    }
}

/// A name that begins with `@` is no path.
fn send(name: &str, text: &[u8]) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text, &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_is_told_by_either_kind_of_name() {
        let name = format!("knoll-notify-{}", std::process::id());
        let path = env::temp_dir().join(&name);
        let by_name = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_path = SocketAddr::from_pathname(&path).expect("a path");
        for (address, name) in [(by_name, format!("@{name}")), (by_path, path.display().to_string())] {
            let listener = UnixDatagram::bind_addr(&address).expect("it is free");
            send(&name, b"READY=1").expect("somebody listens");
            let mut buffer = [0; 16];
            let length = listener.recv(&mut buffer).expect("it was sent");
            assert_eq!(&buffer[..length], b"READY=1");
            drop(listener);
            assert!(send(&name, b"READY=1").is_err(), "nobody listens any more");
        }
        std::fs::remove_file(path).expect("it was made");
    }
}
