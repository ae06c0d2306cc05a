//! `v5.channel.k8s.io`: the streams of a command, a byte before each message telling which.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::web_socket::{Message, Reader, Socket, Writer, split};
use crate::{
    node_backend::{ExecInput, ExecOutput, ExecStreams},
    status,
};

/// How often a client is asked whether it lives while a command takes none of its input: nothing is read of it then.
const ASK: Duration = Duration::from_secs(30);

/// Protocols we speak, newest first. Version 4 lacks the end of input.
pub(crate) const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Carries a command's streams until it ends or the client goes; of one that did not start, why.
pub(crate) async fn carry(socket: Socket, started: Result<ExecStreams, status::Status>) {
    let (mut reader, mut writer) = split(socket);
    let carried = match started {
        Ok(streams) => run(&mut reader, &mut writer, streams).await,
        Err(status) => refuse(&mut writer, &status).await,
    };
    if let Err(error) = carried {
        debug!(%error, "a command's client has gone");
    }
}

/// Clients take these as the sign that the channels they read are open; kubectl complains of one on its own.
async fn open<W: AsyncWrite + Unpin>(writer: &mut Writer<W>) -> std::io::Result<()> {
    for channel in [STDOUT, STDERR, ERROR] {
        writer.channel(channel, b"").await?;
    }
    Ok(())
}

async fn refuse<W: AsyncWrite + Unpin>(writer: &mut Writer<W>, status: &status::Status) -> std::io::Result<()> {
    open(writer).await?;
    writer.channel(ERROR, status.to_json().to_string().as_bytes()).await?;
    writer.close().await
}

async fn run<R, W>(reader: &mut Reader<R>, writer: &mut Writer<W>, streams: ExecStreams) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let ExecStreams { input, mut output } = streams;
    open(writer).await?;
    // Input that the command has no room for. Its output goes on meanwhile: it may read no more until that is taken.
    let mut waiting: Option<ExecInput> = None;
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
            room = input.reserve(), if waiting.is_some() => match (room, waiting.take()) {
                (Ok(room), Some(item)) => room.send(item),
                // A command that does not read any more still has output to send.
                _ => debug!("input for a command that has closed its own"),
            },
            message = reader.next(), if waiting.is_none() => match message {
                Some(Message::Ping(bytes)) => writer.pong(&bytes).await?,
                Some(Message::Data(bytes)) => waiting = input_of(bytes),
                None => return Ok(()),
            },
            () = tokio::time::sleep(ASK), if waiting.is_some() => writer.ping().await?,
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Frames of a client, with a mask that changes nothing.
    fn sent(channel: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len() + 1).expect("short").to_be_bytes();
        [&[0x82, 0x80 | 126, length[0], length[1], 0, 0, 0, 0, channel], data].concat()
    }

    #[tokio::test]
    async fn a_command_that_says_more_than_it_is_told_does_not_wait_for_its_input() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let (source, target) = tokio::io::split(near);
        let (input, mut inputs) = tokio::sync::mpsc::channel(1);
        let (outputs, output) = tokio::sync::mpsc::channel(1);
        let command = async {
            while let Some(ExecInput::Stdin(bytes)) = inputs.recv().await {
                for _ in 0..64 {
                    outputs.send(ExecOutput::Stdout(bytes.clone())).await.expect("taken");
                }
            }
            outputs.send(ExecOutput::Exit(0)).await.expect("taken");
        };
        let (mut read, mut write) = tokio::io::split(far);
        let talk = async {
            for _ in 0..64 {
                write.write_all(&sent(STDIN, &[7; 500])).await.expect("goes");
            }
            write.write_all(&sent(CLOSE, &[STDIN])).await.expect("goes");
        };
        let listen = async {
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.expect("comes");
            all
        };
        let carried = async {
            let streams = ExecStreams { input, output };
            run(&mut Reader::new(source), &mut Writer::new(target), streams).await
        };
        let all = async {
            tokio::join!(command, talk, listen, async {
                carried.await.expect("to its end");
            })
        };
        let (_, _, heard, ()) =
            tokio::time::timeout(Duration::from_secs(20), all).await.expect("nobody waits for another");
        assert_eq!(heard.iter().filter(|byte| **byte == 7).count(), 64 * 64 * 500);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_while_its_input_waits_is_noticed() {
        let (near, mut far) = tokio::io::duplex(1 << 12);
        let (source, target) = tokio::io::split(near);
        let (input, _unread) = tokio::sync::mpsc::channel(1);
        let (_silent, output) = tokio::sync::mpsc::channel(1);
        for _ in 0..2 {
            far.write_all(&sent(STDIN, b"more")).await.expect("goes");
        }
        let carried = tokio::spawn(async move {
            run(&mut Reader::new(source), &mut Writer::new(target), ExecStreams { input, output }).await
        });
        drop(far);
        assert!(carried.await.expect("no panic").is_err());
    }

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
