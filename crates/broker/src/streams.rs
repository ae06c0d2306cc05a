//! The names of the log's streams, and whose they are.

use std::collections::HashMap;

use knoll_journal::events::StreamId;

use crate::topology::Addressable;

const BACKLOG: &str = "behind";
const DEAD_LETTERS: &str = "dead-letters";

/// The events of a broker or channel.
pub(crate) fn events(of: &Addressable) -> String {
    let name = of.name();
    format!("{}/{}/{}/{}", name.kind.as_str(), name.namespace, name.name, of.uid())
}

/// What a subscriber of a broker or channel is behind with, both by uid.
pub(crate) fn backlog(addressable: &str, subscription: &str) -> String {
    format!("{BACKLOG}/{addressable}/{subscription}")
}

/// The dead letters of a broker or channel, by uid.
pub(crate) fn dead_letters(addressable: &str) -> String {
    format!("{DEAD_LETTERS}/{addressable}")
}

/// The namespaces that streams belong to, told by their names alone: that of their broker or channel. A stream of a broker
/// or channel that has none itself belongs to nobody.
pub(crate) fn namespaces(streams: &[(StreamId, Vec<u8>)]) -> Vec<(StreamId, &str)> {
    let named = streams.iter().filter_map(|(id, name)| {
        let parts: Vec<&str> = std::str::from_utf8(name).ok()?.split('/').collect();
        Some((*id, parts))
    });
    let named: Vec<(StreamId, Vec<&str>)> = named.collect();
    let by_uid: HashMap<&str, &str> = named.iter().filter_map(|(_, parts)| owner(parts)).collect();
    let whose = |(id, parts): &(StreamId, Vec<&str>)| {
        let uid = match parts[..] {
            [BACKLOG, uid, _] | [DEAD_LETTERS, uid] => uid,
            _ => owner(parts)?.0,
        };
        Some((*id, *by_uid.get(uid)?))
    };
    named.iter().filter_map(whose).collect()
}

/// The uid and namespace of the broker or channel whose events a stream has.
fn owner<'a>(parts: &[&'a str]) -> Option<(&'a str, &'a str)> {
    match *parts {
        ["broker" | "channel", namespace, _, uid] => Some((uid, namespace)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use knoll_journal::{
        MemoryDisk,
        events::{EventLog, EventOptions, Write},
    };

    use super::*;
    use crate::topology::{Kind, Name};

    #[test]
    fn streams_are_their_brokers_or_channels_namespaces() {
        let of = |kind, namespace, uid| Addressable::new(Name::new(kind, namespace, "x"), uid, None, Vec::new());
        let (broker, channel) = (of(Kind::Broker, "a", "1"), of(Kind::Channel, "b", "2"));
        let names = [
            backlog("1", "t"),
            events(&broker),
            dead_letters("2"),
            events(&channel),
            backlog("2", "s"),
            dead_letters("gone"),
            "odd".to_owned(),
        ];
        let options = EventOptions { reserve_bytes: 0, ..EventOptions::default() };
        let (mut log, _) = EventLog::open(std::sync::Arc::new(MemoryDisk::default()), options).expect("opens");
        let writes = names.map(|name| Write::CreateStream { name: Bytes::from(name) });
        assert!(log.write(&writes).iter().all(Result::is_ok));
        let streams = log.reader().streams();
        let namespaces: Vec<&str> = namespaces(&streams).into_iter().map(|(_, namespace)| namespace).collect();
        assert_eq!(namespaces, ["a", "a", "b", "b", "b"]);
    }
}
