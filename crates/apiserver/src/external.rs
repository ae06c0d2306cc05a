//! Which external address and port belongs to which Service.

use std::{collections::BTreeSet, net::IpAddr};

use knoll_store::Snapshot;
use serde_json::Value;

use crate::{object, validation::addresses::parse};

const PREFIX: &str = "/core/services/";
/// The field, as it stands in stored objects.
const FIELD: &[u8] = b"\"externalIPs\"";

/// An address, port and protocol that clients use.
type Place = (IpAddr, i64, String);

/// Why a Service cannot have its external addresses, each with the address's index: another Service has one.
///
/// Reads every Service's bytes, and decodes those that have external addresses: few do, and only their writers wait.
pub(crate) fn conflicts(snapshot: &Snapshot, old: Option<&Value>, service: &Value) -> Vec<(usize, String)> {
    let held: BTreeSet<Place> = old.map(places).unwrap_or_default().into_iter().map(|(_, place)| place).collect();
    let wanted: Vec<_> = places(service).into_iter().filter(|(_, place)| !held.contains(place)).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let own = format!("{PREFIX}{}/{}", object::namespace(service), object::name(service));
    let mut taken = BTreeSet::new();
    for entry in snapshot.range(PREFIX, None) {
        let has_some = entry.value.windows(FIELD.len()).any(|window| window == FIELD);
        if has_some
            && *entry.key != *own
            && let Ok(other) = serde_json::from_slice(&entry.value)
        {
            taken.extend(places(&other).into_iter().map(|(_, place)| place));
        }
    }
    let conflicting = wanted.into_iter().filter(|(_, place)| taken.contains(place));
    conflicting
        .map(|(at, (_, port, protocol))| {
            (at, format!("port {port}/{protocol} of this address is already another Service's"))
        })
        .collect()
}

/// Every place of a Service, with the index of its address.
fn places(service: &Value) -> Vec<(usize, Place)> {
    let ports: Vec<(i64, &str)> = object::list(service, "/spec/ports")
        .iter()
        .map(|port| {
            let protocol = object::text(port, "/protocol");
            (object::integer(port, "/port").unwrap_or(0), if protocol.is_empty() { "TCP" } else { protocol })
        })
        .collect();
    let addresses = object::list(service, "/spec/externalIPs").iter().enumerate();
    let known = addresses.filter_map(|(at, address)| Some((at, parse(address.as_str()?)?)));
    known
        .flat_map(|(at, ip)| ports.iter().map(move |(port, protocol)| (at, (ip, *port, (*protocol).to_owned()))))
        .collect()
}
