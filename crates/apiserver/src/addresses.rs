//! Addresses and ports of Services, handed out once each.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;

use crate::object;

/// First address of the Services' range, 10.96.0.0/12.
const FIRST: u32 = u32::from_be_bytes([10, 96, 0, 0]);
/// How many there are.
const COUNT: u32 = 1 << 20;
/// Addresses below this offset are given only to who asks for them.
const RESERVED: u32 = 256;
/// Node ports.
const PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// The address of `default/kubernetes`.
pub(crate) const KUBERNETES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

#[derive(Default)]
struct Taken {
    /// Those of stored Services.
    stored: Set,
    /// Those of writes on their way.
    allocated: Set,
    next_address: u32,
    next_port: u16,
}

#[derive(Default)]
struct Set {
    addresses: HashSet<u32>,
    ports: HashSet<u16>,
}

impl Set {
    fn take(&mut self, service: &Value) {
        self.addresses.extend(address_of(service));
        self.ports.extend(node_ports(service));
    }
}

impl Taken {
    /// Takes an address for a write, unless somebody has it.
    fn allocate_address(&mut self, offset: u32) -> bool {
        !self.stored.addresses.contains(&offset) && self.allocated.addresses.insert(offset)
    }

    /// Takes a port for a write, unless somebody has it.
    fn allocate_port(&mut self, port: u16) -> bool {
        !self.stored.ports.contains(&port) && self.allocated.ports.insert(port)
    }
}

/// What is taken, and what comes next.
#[derive(Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<Taken>>);

/// What was handed out for a write on its way. The writer keeps it until the write is stored and known here, or will
/// not be: then the stored Service alone says what is taken.
pub(crate) struct Allocation {
    from: Addresses,
    address: Option<u32>,
    port: Option<u16>,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let mut taken = self.from.lock();
        if let Some(address) = self.address {
            taken.allocated.addresses.remove(&address);
        }
        if let Some(port) = self.port {
            taken.allocated.ports.remove(&port);
        }
    }
}

/// Why an address or port was not handed out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It lies outside the range.
    OutOfRange,
    /// Another Service has it.
    Taken,
    /// None is left.
    Exhausted,
}

impl Addresses {
    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These Services are all there are.
    pub(crate) fn reset(&self, services: impl Iterator<Item = Arc<Value>>) {
        let mut stored = Set::default();
        services.for_each(|service| stored.take(&service));
        self.lock().stored = stored;
    }

    /// What a Service had becomes free, what it has now is taken: in one step.
    pub(crate) fn replace(&self, old: Option<&Value>, new: Option<&Value>) {
        let mut taken = self.lock();
        if let Some(old) = old {
            if let Some(offset) = address_of(old) {
                taken.stored.addresses.remove(&offset);
            }
            for port in node_ports(old) {
                taken.stored.ports.remove(&port);
            }
        }
        if let Some(new) = new {
            taken.stored.take(new);
        }
    }

    /// A free address.
    pub(crate) fn any_address(&self) -> Result<(Ipv4Addr, Allocation), Refused> {
        let mut taken = self.lock();
        for _ in RESERVED..COUNT - 1 {
            let candidate = RESERVED + taken.next_address % (COUNT - 1 - RESERVED);
            taken.next_address = taken.next_address.wrapping_add(1);
            if taken.allocate_address(candidate) {
                let allocation = Allocation { from: self.clone(), address: Some(candidate), port: None };
                return Ok((Ipv4Addr::from(FIRST + candidate), allocation));
            }
        }
        Err(Refused::Exhausted)
    }

    /// This address.
    pub(crate) fn address(&self, address: Ipv4Addr) -> Result<Allocation, Refused> {
        let offset = offset(address).filter(|&o| o > 0 && o < COUNT - 1).ok_or(Refused::OutOfRange)?;
        if !self.lock().allocate_address(offset) {
            return Err(Refused::Taken);
        }
        Ok(Allocation { from: self.clone(), address: Some(offset), port: None })
    }

    /// A free node port.
    pub(crate) fn any_port(&self) -> Result<(u16, Allocation), Refused> {
        let mut taken = self.lock();
        let count = PORTS.end() - PORTS.start() + 1;
        for _ in 0..count {
            let candidate = PORTS.start() + taken.next_port % count;
            taken.next_port = taken.next_port.wrapping_add(1);
            if taken.allocate_port(candidate) {
                return Ok((candidate, Allocation { from: self.clone(), address: None, port: Some(candidate) }));
            }
        }
        Err(Refused::Exhausted)
    }

    /// This node port.
    pub(crate) fn port(&self, port: u16) -> Result<Allocation, Refused> {
        if !PORTS.contains(&port) {
            return Err(Refused::OutOfRange);
        }
        if !self.lock().allocate_port(port) {
            return Err(Refused::Taken);
        }
        Ok(Allocation { from: self.clone(), address: None, port: Some(port) })
    }
}

/// What is taken, in order: for comparing.
#[cfg(test)]
impl std::fmt::Display for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let taken = self.lock();
        let sorted = |set: &Set| {
            let mut all: Vec<u32> = set.addresses.iter().copied().chain(set.ports.iter().map(|&p| p.into())).collect();
            all.sort_unstable();
            all
        };
        write!(f, "stored {:?} allocated {:?}", sorted(&taken.stored), sorted(&taken.allocated))
    }
}

fn address_of(service: &Value) -> Option<u32> {
    object::text(service, "/spec/clusterIP").parse().ok().and_then(offset)
}

fn offset(address: Ipv4Addr) -> Option<u32> {
    u32::from(address).checked_sub(FIRST).filter(|&o| o < COUNT)
}

/// Whether an address is of the Services' range.
pub(crate) fn in_range(address: Ipv4Addr) -> bool {
    offset(address).is_some()
}

fn node_ports(service: &Value) -> impl Iterator<Item = u16> {
    let ports = object::list(service, "/spec/ports").iter();
    ports.filter_map(|p| p["nodePort"].as_u64()).filter_map(|p| u16::try_from(p).ok()).filter(|&p| p > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_is_handed_out_once_and_comes_back_when_it_was_not_stored() {
        let addresses = Addresses::default();
        let (first, allocation) = addresses.any_address().unwrap();
        assert_eq!(addresses.address(first).err(), Some(Refused::Taken));
        drop(allocation);
        let allocation = addresses.address(first).unwrap();
        let service = json!({"spec": {"clusterIP": first.to_string(), "ports": [{"nodePort": 30000}]}});
        addresses.replace(None, Some(&service));
        drop(allocation);
        assert_eq!(addresses.address(first).err(), Some(Refused::Taken));
        assert_eq!(addresses.port(30000).err(), Some(Refused::Taken));
        addresses.reset(std::iter::empty());
        assert!(addresses.address(first).is_ok());
        assert_eq!(addresses.address(Ipv4Addr::new(10, 1, 0, 1)).err(), Some(Refused::OutOfRange));
    }
}
