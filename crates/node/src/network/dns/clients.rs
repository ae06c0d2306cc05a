//! What each client of the DNS server may take of it, so that one pod cannot starve the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use knoll_bounds::network;

/// Questions a second that one client may ask for long, and at once.
const RATE: f64 = 2000.0;
const BURST: f64 = 4000.0;
/// Questions of one client that others are asked for at a time.
const ASKING: u32 = 64;
/// Connections of one client at a time.
const CONNECTIONS: u32 = 32;
/// Clients that are known at a time; more than a machine has pods.
const KNOWN: usize = 32_768;

/// Everybody who has asked lately, by what counts as one client ([`network`]).
#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<IpAddr, Client>>);

struct Client {
    asking: u32,
    connections: u32,
    tokens: f64,
    at: Instant,
}

impl Client {
    fn new(now: Instant) -> Client {
        Client { asking: 0, connections: 0, tokens: BURST, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * RATE;
        self.tokens = (self.tokens + gained).min(BURST);
        self.at = now;
    }

    fn is_idle(&self, now: Instant) -> bool {
        let rested = now.saturating_duration_since(self.at) > Duration::from_secs_f64(BURST / RATE);
        self.asking == 0 && self.connections == 0 && rested
    }
}

/// What is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// A question that others are asked for.
    Asking,
    /// A connection.
    Connection,
}

/// A part of a share, given back when dropped.
pub(super) struct Taken {
    clients: Arc<Clients>,
    client: IpAddr,
    share: Share,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.clients.lock();
        if let Some(client) = all.get_mut(&self.client) {
            let held = client.held(self.share);
            *held = held.saturating_sub(1);
        }
    }
}

impl Client {
    fn held(&mut self, share: Share) -> &mut u32 {
        match share {
            Share::Asking => &mut self.asking,
            Share::Connection => &mut self.connections,
        }
    }
}

impl Clients {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client may ask one more question now.
    pub(super) fn may_ask(&self, client: IpAddr, now: Instant) -> bool {
        let mut all = self.lock();
        let Some(client) = known(&mut all, network(client), now) else { return false };
        client.refill(now);
        let may = client.tokens >= 1.0;
        if may {
            client.tokens -= 1.0;
        }
        may
    }

    /// A part of a client's share, if it has one left.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr, share: Share, now: Instant) -> Option<Taken> {
        let most = match share {
            Share::Asking => ASKING,
            Share::Connection => CONNECTIONS,
        };
        let (mut all, client) = (self.lock(), network(client));
        let held = known(&mut all, client, now)?.held(share);
        if *held >= most {
            return None;
        }
        *held += 1;
        Some(Taken { clients: Arc::clone(self), client, share })
    }
}

fn known(all: &mut HashMap<IpAddr, Client>, client: IpAddr, now: Instant) -> Option<&mut Client> {
    if all.len() >= KNOWN && !all.contains_key(&client) {
        all.retain(|_, known| !known.is_idle(now));
        if all.len() >= KNOWN {
            return None;
        }
    }
    Some(all.entry(client).or_insert_with(|| Client::new(now)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 5));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 6));

    #[test]
    fn one_that_asks_without_end_leaves_the_others_their_share() {
        let (clients, now) = (Clients::default(), Instant::now());
        let heard = (0..100_000).filter(|_| clients.may_ask(ONE, now)).count();
        assert_eq!(heard, 4000);
        assert!(clients.may_ask(OTHER, now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100_000).filter(|_| clients.may_ask(ONE, later)).count(), 2000);
    }

    #[test]
    fn a_share_comes_back_when_it_is_dropped() {
        let (clients, now) = (Arc::new(Clients::default()), Instant::now());
        let held: Vec<_> = std::iter::from_fn(|| clients.take(ONE, Share::Connection, now)).collect();
        assert_eq!(held.len(), 32);
        assert!(
            clients.take(OTHER, Share::Connection, now).is_some() && clients.take(ONE, Share::Asking, now).is_some()
        );
        drop(held);
        assert!(clients.take(ONE, Share::Connection, now).is_some());
    }

    /// The machine's users have millions of addresses on its loopback, from which they can ask here.
    #[test]
    fn all_addresses_of_the_loopback_are_one_client() {
        let (clients, now) = (Arc::new(Clients::default()), Instant::now());
        let user = |n: u32| IpAddr::V4(Ipv4Addr::from(0x7f00_0001 + n));
        let held: Vec<_> = (0..100).filter_map(|n| clients.take(user(n), Share::Connection, now)).collect();
        assert_eq!(held.len(), 32);
        assert_eq!((0..100_000).filter(|&n| clients.may_ask(user(n), now)).count(), 4000);
        assert_eq!(clients.lock().len(), 1, "nobody else is refused for want of room");
        drop(held);
        assert!(clients.take(user(7), Share::Connection, now).is_some(), "it is given back");
    }

    #[test]
    fn clients_that_have_gone_are_forgotten_before_new_ones_are_refused() {
        let (clients, now) = (Clients::default(), Instant::now());
        let address = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0af4_0000 + n));
        for n in 0..32_768 {
            assert!(clients.may_ask(address(n), now));
        }
        assert!(!clients.may_ask(address(40_000), now));
        assert!(clients.may_ask(address(40_000), now + Duration::from_secs(3)));
        assert_eq!(clients.lock().len(), 1);
    }
}
