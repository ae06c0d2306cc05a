//! `v5.channel.k8s.io`: the streams of a command, a byte before each message telling which.

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::web_socket::{Message, Reader, Socket, Writer, split};
use crate::{
    node_backend::{ExecInput, ExecOutput, ExecStreams},
    status,
};

/// Protocols we speak, newest first. Version 4 lacks the end of input.
pub(crate) const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Carries a command's streams until it ends or the client goes.
pub(crate) async fn carry(socket: Socket, streams: ExecStreams) {
    let (mut reader, mut writer) = split(socket);
    if let Err(error) = run(&mut reader, &mut writer, streams).await {
        debug!(%error, "a command's client has gone");
    }
}

async fn run<R, W>(reader: &mut Reader<R>, writer: &mut Writer<W>, streams: ExecStreams) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let ExecStreams { input, mut output } = streams;
    // Clients take these as the sign that the channels they read are open; kubectl complains of one on its own.
    for channel in [STDOUT, STDERR, ERROR] {
        writer.channel(channel, b"").await?;
    }
    loop {
        tokio::select! {
            biased;
            item = output.recv() => match item {
                Some(ExecOutput::Stdout(bytes)) => writer.channel(STDOUT, &bytes).await?,
                Some(ExecOutput::Stderr(bytes)) => writer.channel(STDERR, &bytes).await?,
                Some(ExecOutput::Exit(code)) => {
                    writer.channel(ERROR, exit_status(code).to_string().as_bytes()).await?;
                    return writer.close().await;
                }
                None => {
                    let lost = status::Status::internal("the command's end was not reported").to_json();
                    writer.channel(ERROR, lost.to_string().as_bytes()).await?;
                    return writer.close().await;
                }
            },
            message = reader.next() => match message {
                Some(Message::Ping(bytes)) => writer.pong(&bytes).await?,
                Some(Message::Data(bytes)) => {
                    // A command that does not read any more still has output to send.
                    if let Some(item) = input_of(bytes) && input.send(item).await.is_err() {
                        debug!("input for a command that has closed its own");
                    }
                }
                None => return Ok(()),
            },
        }
    }
}

fn input_of(mut message: Bytes) -> Option<ExecInput> {
    if message.is_empty() {
        return None;
    }
    let data = message.split_off(1);
    match message[0] {
        STDIN if !data.is_empty() => Some(ExecInput::Stdin(data)),
        CLOSE if data.first() == Some(&STDIN) => Some(ExecInput::CloseStdin),
        RESIZE => {
            let size: Value = serde_json::from_slice(&data).ok()?;
            let side = |name: &str| size[name].as_u64().and_then(|n| u16::try_from(n).ok());
            Some(ExecInput::Resize { width: side("Width")?, height: side("Height")? })
        }
        _ => None,
    }
}

/// How a command ended, as clients read it.
fn exit_status(code: i32) -> Value {
    if code == 0 {
        return status::success();
    }
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_input() {
        assert_eq!(input_of(Bytes::from_static(b"\0hi")), Some(ExecInput::Stdin("hi".into())));
        assert_eq!(input_of(Bytes::from_static(b"\xff\0")), Some(ExecInput::CloseStdin));
        let resize = Bytes::from_static(b"\x04{\"Width\":80,\"Height\":24}");
        assert_eq!(input_of(resize), Some(ExecInput::Resize { width: 80, height: 24 }));
        assert_eq!(input_of(Bytes::from_static(b"\0")), None);
    }

    #[test]
    fn a_failed_command_tells_its_code() {
        assert_eq!(exit_status(7)["details"]["causes"][0]["message"], "7");
        assert_eq!(exit_status(0)["status"], "Success");
    }
}
