//! The warm pool: sandboxes in all but name, made ahead of time. A claim takes one; a claim on an empty pool waits for
//! the one that is being made.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::connection::Ticket;
use super::namespaces::{Namespaces, NamespacesSpec, Veth};
use super::request::{Internal, refuse};
use super::{Monitor, Source, daemon};
use crate::netlink::Socket;
use crate::netlink::route::RT_SCOPE_LINK;
use crate::protocol::{Configuration, Network, PodNetwork, Refusal, RefusalKind, SandboxSpec};
use crate::sys::{self, Spawned};

/// The most helpers at a time.
const MAX_FILLERS: usize = 2;
/// The most claims that wait.
const MAX_WAITING: usize = 1024;
/// The largest pool.
const MAX_POOL: u32 = 256;
/// A claim is followed by work that should have the machine for itself, so refilling waits this long.
const REFILL_AFTER: Duration = Duration::from_millis(30);
/// The most that are made ahead of claims that were announced, where the pool is smaller.
const MAX_AHEAD: usize = 4;
/// How long an announced claim is waited for.
const EXPECTED_WITHIN: Duration = Duration::from_secs(5);
/// Addresses that are recorded as given before they are, so that most are given without a write.
const RECORDED_AHEAD: u32 = 64;
/// How long to wait after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Namespaces of sandboxes: ready, in the making, asked for.
#[derive(Default)]
pub(super) struct Pool {
    network: Option<PodNetwork>,
    target: usize,
    /// Nothing more is made ahead of claims, whatever is asked for.
    closed: bool,
    /// Claims that were announced and have not come, and until when they may.
    expected: (usize, Option<Instant>),
    ready: VecDeque<Namespaces>,
    fillers: BTreeMap<u64, Filler>,
    waiting: VecDeque<(Ticket, SandboxSpec)>,
    addresses: BTreeSet<Ipv4Addr>,
    /// The offset of the address that was given last.
    last: u32,
    /// Whether that was recorded, and is not to be found out from what is taken.
    knows_last: bool,
    /// How many offsets after that one are recorded as given.
    recorded: u32,
}

/// A helper at work.
struct Filler {
    spec: NamespacesSpec,
    spawned: Spawned,
    status: OwnedFd,
    /// For a sandbox without an address, which the pool does not hold.
    only_for: Option<(Ticket, SandboxSpec)>,
}

impl Pool {
    /// How many are ready.
    pub(super) fn ready(&self) -> u32 {
        u32::try_from(self.ready.len()).unwrap_or(u32::MAX)
    }

    /// Makes no more, but for claims that wait.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// How many should be ready.
    fn wanted(&self) -> usize {
        if self.closed {
            return 0;
        }
        self.target.max(self.expected.0.min(MAX_AHEAD))
    }

    /// An announced claim has come.
    fn expect_one_less(&mut self) {
        self.expected.0 = self.expected.0.saturating_sub(1);
    }

    /// Gives announced claims up that have not come in time. Returns how long others have still to come.
    fn expect_no_longer(&mut self, now: Instant) -> Option<Duration> {
        let left = self.expected.1?.saturating_duration_since(now);
        if left.is_zero() {
            self.expected = (0, None);
            return None;
        }
        Some(left)
    }

    /// Whether nothing is in the making.
    pub(super) fn is_idle(&self) -> bool {
        self.fillers.is_empty() && self.waiting.is_empty()
    }

    /// Whether a process is one of its helpers.
    pub(super) fn has_helper(&self, pid: i32) -> bool {
        self.fillers.values().any(|filler| filler.spawned.pid == pid)
    }

    /// Gives an address back.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.addresses.remove(&address);
    }

    /// Marks an address as taken.
    pub(super) fn take_address(&mut self, address: Ipv4Addr) {
        self.addresses.insert(address);
        if !self.knows_last
            && let Some(network) = &self.network
            && let Some(offset) = u32::from(address).checked_sub(u32::from(network.address))
        {
            self.last = self.last.max(offset);
        }
    }

    /// Gives addresses of this network from now on, after the offset `last`, or else after those that are taken.
    fn begin(&mut self, network: Option<PodNetwork>, last: Option<u32>) {
        (self.network, self.last, self.recorded) = (network, last.unwrap_or_default(), 0);
        self.knows_last = last.is_some();
    }

    /// Everything that is ready, to be thrown away.
    pub(super) fn drain(&mut self) -> Vec<Namespaces> {
        self.ready.drain(..).collect()
    }

    /// What is known of the network.
    pub(super) fn network(&self) -> Option<&PodNetwork> {
        self.network.as_ref()
    }

    /// The next free address and the number of its interface. Addresses come back as late as possible, because what
    /// was connected to the last owner may not know yet: after a restart of everything the API still tells of pods by the
    /// addresses they had.
    fn next_address(&mut self) -> Option<(Ipv4Addr, u32)> {
        let network = self.network.as_ref()?;
        let size = 1u32.checked_shl(32 - u32::from(network.prefix)).unwrap_or(u32::MAX);
        let base = u32::from(network.address);
        // Neither the first (the network) nor the last (broadcast).
        for step in 1..size {
            let offset = (self.last.wrapping_add(step)) % size;
            let address = Ipv4Addr::from(base.wrapping_add(offset));
            if offset != 0 && offset != size - 1 && !self.addresses.contains(&address) {
                self.last = offset;
                self.recorded = self.recorded.saturating_sub(step);
                self.addresses.insert(address);
                return Some((address, offset));
            }
        }
        None
    }
}

impl Monitor {
    pub(super) fn configure(&mut self, configuration: Configuration) -> Result<(), Refusal> {
        if let Some(network) = &configuration.network {
            check(network)?;
            ensure_gateway(network.gateway).internal("put the gateway address on the loopback interface")?;
        }
        if self.pool.network != configuration.network {
            let last = self.saved_last_address().internal("read which addresses were given")?;
            self.discard_pool();
            self.pool.begin(configuration.network, last);
            let taken: Vec<Ipv4Addr> = self.sandboxes.values().filter_map(|s| s.status.address).collect();
            taken.into_iter().for_each(|address| self.pool.take_address(address));
        }
        self.pool.target = configuration.pool.min(MAX_POOL) as usize;
        self.trim_pool();
        self.save_configuration();
        self.fill_pool();
        Ok(())
    }

    fn trim_pool(&mut self) {
        while self.pool.ready.len() > self.pool.wanted() {
            if let Some(namespaces) = self.pool.ready.pop_back() {
                self.discard(&namespaces);
            }
        }
    }

    /// So many more claims are about to come.
    pub(super) fn expect_sandboxes(&mut self, more: u32) {
        let expected = self.pool.expected.0.saturating_add(more as usize).min(MAX_WAITING);
        self.pool.expected = (expected, Some(Instant::now() + EXPECTED_WITHIN));
        self.events.wake_after(EXPECTED_WITHIN);
        self.fill_pool();
    }

    /// Fills the pool up, and removes what was announced and not claimed.
    pub(super) fn tend_pool(&mut self) {
        if let Some(left) = self.pool.expect_no_longer(Instant::now()) {
            self.events.wake_after(left);
        }
        self.trim_pool();
        self.fill_pool();
    }

    /// The configuration as it stands.
    pub(super) fn configuration(&self) -> Configuration {
        Configuration { network: self.pool.network.clone(), pool: u32::try_from(self.pool.target).unwrap_or(0) }
    }

    /// Restores the configuration of an earlier monitor.
    ///
    /// # Errors
    /// When it cannot be read which addresses were given.
    pub(super) fn restore_configuration(&mut self, configuration: Configuration) -> io::Result<()> {
        let last = self.saved_last_address()?;
        self.pool.begin(configuration.network, last);
        self.pool.target = configuration.pool.min(MAX_POOL) as usize;
        Ok(())
    }

    /// Takes a set of namespaces for a sandbox, or leaves the request waiting.
    pub(super) fn claim(
        &mut self,
        ticket: Ticket,
        spec: SandboxSpec,
    ) -> Result<Option<(SandboxSpec, Namespaces)>, Refusal> {
        if spec.network != Network::None && self.pool.network.is_none() {
            return Err(refuse(RefusalKind::State, "no network has been configured"));
        }
        // The pool holds neither sandboxes without an address nor such with ids of their own.
        if spec.network == Network::None || spec.user_namespace {
            if self.pool.fillers.len() >= MAX_WAITING {
                return Err(refuse(RefusalKind::Exhausted, "too many sandboxes are being made"));
            }
            self.start_filler(Some((ticket, spec)))?;
            return Ok(None);
        }
        self.pool.expect_one_less();
        if let Some(namespaces) = self.pool.ready.pop_front() {
            let low = self.pool.ready.len() * 2 < self.pool.target;
            self.events.wake_after(if low { Duration::from_millis(5) } else { REFILL_AFTER });
            return Ok(Some((spec, namespaces)));
        }
        if self.pool.waiting.len() >= MAX_WAITING {
            return Err(refuse(RefusalKind::Exhausted, "too many sandboxes are being made"));
        }
        self.pool.waiting.push_back((ticket, spec));
        self.fill_pool();
        Ok(None)
    }

    /// Whether a sandbox of this name is being made.
    pub(super) fn is_being_made(&self, spec: &SandboxSpec) -> bool {
        let fillers = self.pool.fillers.values().filter_map(|filler| filler.only_for.as_ref());
        fillers.chain(&self.pool.waiting).any(|(_, other)| other.id == spec.id)
    }

    /// Starts as many helpers as are needed and allowed.
    pub(super) fn fill_pool(&mut self) {
        if self.pool.network.is_none() {
            return;
        }
        loop {
            let making = self.pool.fillers.values().filter(|filler| filler.only_for.is_none()).count();
            let wanted = self.pool.waiting.len() + self.pool.wanted().saturating_sub(self.pool.ready.len());
            if making >= wanted || making >= MAX_FILLERS {
                return;
            }
            if let Err(refusal) = self.start_filler(None) {
                tracing::warn!(error = refusal.message, "cannot prepare a sandbox");
                self.fail_waiting(&refusal);
                return self.events.wake_after(RETRY_AFTER);
            }
        }
    }

    /// Records addresses as given before one is used that is not.
    fn record_addresses(&mut self) {
        if self.pool.recorded > 0 {
            return;
        }
        match self.save_last_address(self.pool.last.wrapping_add(RECORDED_AHEAD)) {
            Ok(()) => self.pool.recorded = RECORDED_AHEAD,
            Err(error) => {
                tracing::error!(%error, "the addresses that are given are not recorded: they may come back soon after a restart");
            }
        }
    }

    fn fail_waiting(&mut self, refusal: &Refusal) {
        let waiting = std::mem::take(&mut self.pool.waiting);
        waiting.into_iter().for_each(|(ticket, _)| self.reply(ticket, Err(refusal.clone())));
    }

    fn start_filler(&mut self, only_for: Option<(Ticket, SandboxSpec)>) -> Result<(), Refusal> {
        let name = format!("{:x}", self.next_serial());
        let mut veth = None;
        if only_for.as_ref().is_none_or(|(_, spec)| spec.network == Network::Pod)
            && let Some(network) = self.pool.network.clone()
        {
            let exhausted = || refuse(RefusalKind::Exhausted, "all pod addresses are taken");
            let (address, number) = self.pool.next_address().ok_or_else(exhausted)?;
            self.record_addresses();
            let interface = format!("{}{number:x}", network.interface_prefix);
            veth = Some(Veth { address, interface, network });
        }
        let path = self.options.runtime_dir.join("net").join(&name);
        let mapped = only_for.as_ref().is_some_and(|(_, spec)| spec.user_namespace);
        let ids = match mapped.then(|| self.ids.next()).transpose() {
            Ok(ids) => ids,
            Err(refusal) => {
                if let Some(veth) = veth {
                    self.pool.release(veth.address);
                }
                return Err(refusal);
            }
        };
        let spec = NamespacesSpec { path, group: format!("{}/{name}", self.options.cgroup_root), veth, ids };
        match self.spawn_filler(&spec) {
            Ok((spawned, status, token)) => {
                self.pool.fillers.insert(token, Filler { spec, spawned, status, only_for });
                Ok(())
            }
            Err(error) => {
                self.forget(&spec);
                Err(error).internal("start a helper")
            }
        }
    }

    fn spawn_filler(&mut self, spec: &NamespacesSpec) -> std::io::Result<(Spawned, OwnedFd, u64)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let mut theirs = Some(theirs);
        let cgroups = &self.cgroups;
        let spawned = sys::spawn(0, None, || {
            let Some(status) = theirs.take() else { return 1 };
            work(spec, cgroups, &status, ours.as_raw_fd())
        })?;
        drop(theirs);
        let token = self.events.add(&ours, Source::Filler)?;
        Ok((spawned, ours, token))
    }

    /// A helper has reported, or died.
    pub(super) fn filler_says(&mut self, token: u64) {
        let Some(filler) = self.pool.fillers.get(&token) else { return };
        let mut packet = [0; 512];
        let length = recv(filler.status.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT).unwrap_or(0);
        let outcome = match &packet[..length] {
            b"R" => pick_up(filler).internal("pick a sandbox's namespaces up"),
            b"" => Err(refuse(RefusalKind::Internal, "the helper that makes sandboxes has died")),
            text => Err(refuse(RefusalKind::Internal, String::from_utf8_lossy(text))),
        };
        let Some(filler) = self.pool.fillers.remove(&token) else { return };
        let Filler { spec, spawned, status, only_for } = filler;
        self.events.remove(&status, token);
        drop(status);
        self.reap_later(spawned);
        match outcome {
            Ok((net, uts, ipc, user)) => self.namespaces_made(Namespaces { spec, net, uts, ipc, user }, only_for),
            Err(refusal) => self.not_made(&spec, only_for, refusal),
        }
    }

    /// Gives a helper up whose report cannot be handled.
    pub(super) fn give_filler_up(&mut self, token: u64) {
        let Some(Filler { spec, spawned, only_for, .. }) = self.pool.fillers.remove(&token) else { return };
        self.dismiss(spawned);
        let refusal = refuse(RefusalKind::Internal, "the monitor fails at what makes sandboxes, which is a bug");
        self.not_made(&spec, only_for, refusal);
    }

    fn not_made(&mut self, spec: &NamespacesSpec, only_for: Option<(Ticket, SandboxSpec)>, refusal: Refusal) {
        tracing::warn!(error = refusal.message, "cannot prepare a sandbox");
        self.forget(spec);
        match only_for {
            Some((ticket, _)) => self.reply(ticket, Err(refusal)),
            None => self.fail_waiting(&refusal),
        }
        self.events.wake_after(RETRY_AFTER);
    }

    fn namespaces_made(&mut self, namespaces: Namespaces, only_for: Option<(Ticket, SandboxSpec)>) {
        let same = |veth: &Veth| Some(&veth.network) == self.pool.network.as_ref();
        if !namespaces.spec.veth.as_ref().is_none_or(same) {
            self.discard(&namespaces);
        } else if let Some((ticket, spec)) = only_for.or_else(|| self.pool.waiting.pop_front()) {
            self.sandbox_made(ticket, spec, namespaces);
        } else if self.pool.ready.len() < self.pool.wanted() {
            self.pool.ready.push_back(namespaces);
        } else {
            self.discard(&namespaces);
        }
        self.fill_pool();
    }

    /// Throws every set away that is ready.
    pub(super) fn discard_pool(&mut self) {
        let all = self.pool.drain();
        all.iter().for_each(|namespaces| self.discard(namespaces));
    }

    /// Throws a set of namespaces away.
    pub(super) fn discard(&mut self, namespaces: &Namespaces) {
        self.forget(&namespaces.spec);
    }

    fn forget(&mut self, spec: &NamespacesSpec) {
        spec.remove();
        if let Some(veth) = &spec.veth {
            self.pool.release(veth.address);
        }
        if let Some(ids) = spec.ids {
            self.ids.release(ids);
        }
        self.remove_group(spec.group.clone());
    }
}

/// The helper's work: make it, report, wait until it has been picked up.
fn work(spec: &NamespacesSpec, cgroups: &crate::cgroup::Cgroups, status: &OwnedFd, theirs: i32) -> i32 {
    // The monitor's end, inherited, would keep this helper from hearing that the monitor has let go.
    if nix::unistd::close(theirs).is_err() {
        return 1;
    }
    let report = match spec.make(cgroups) {
        Ok(()) => b"R".to_vec(),
        Err(error) => format!("cannot make a sandbox: {error}").into_bytes(),
    };
    let length = report.len().min(512);
    if send(status.as_raw_fd(), &report[..length], MsgFlags::MSG_NOSIGNAL).is_err() {
        return 1;
    }
    i32::from(recv(status.as_raw_fd(), &mut [0; 1], MsgFlags::empty()).is_err())
}

fn pick_up(filler: &Filler) -> std::io::Result<(OwnedFd, OwnedFd, OwnedFd, Option<OwnedFd>)> {
    let open = |kind| daemon::namespace(filler.spawned.pid, kind);
    Ok((open("net")?, open("uts")?, open("ipc")?, filler.spec.open_user()?))
}

fn check(network: &PodNetwork) -> Result<(), Refusal> {
    let prefix = &network.interface_prefix;
    if !(8..=30).contains(&network.prefix) {
        return Err(refuse(RefusalKind::Invalid, "the pod network's prefix length must be 8 to 30"));
    }
    if !(1..=7).contains(&prefix.len()) || !prefix.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(refuse(RefusalKind::Invalid, "the interface prefix must be 1 to 7 letters"));
    }
    if !(576..=65_535).contains(&network.mtu) {
        return Err(refuse(RefusalKind::Invalid, "the MTU must be 576 to 65535"));
    }
    Ok(())
}

/// Routes to pods name the gateway as their source, so it must be an address of this machine.
fn ensure_gateway(gateway: Ipv4Addr) -> std::io::Result<()> {
    let mut socket = Socket::route()?;
    let loopback = socket.link("lo")?;
    socket.add_address(loopback, gateway, RT_SCOPE_LINK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pool_makes_nothing_ahead_whatever_is_announced_later() {
        let mut pool = Pool { target: 3, ..Pool::default() };
        assert_eq!(pool.wanted(), 3);
        pool.close();
        pool.target = 5;
        pool.expected = (2, Some(Instant::now() + EXPECTED_WITHIN));
        assert_eq!(pool.wanted(), 0);
    }

    #[test]
    fn addresses_come_back_last_and_run_out() {
        let network = PodNetwork {
            address: Ipv4Addr::new(10, 9, 0, 0),
            prefix: 29,
            gateway: Ipv4Addr::new(169, 254, 77, 1),
            interface_prefix: "kn".into(),
            mtu: 1500,
        };
        let mut pool = Pool { network: Some(network), ..Pool::default() };
        let mut taken: Vec<u8> = (0..6).filter_map(|_| pool.next_address()).map(|(a, _)| a.octets()[3]).collect();
        assert_eq!(taken, [1, 2, 3, 4, 5, 6]);
        assert_eq!(pool.next_address(), None);
        taken.clear();
        pool.release(Ipv4Addr::new(10, 9, 0, 2));
        pool.release(Ipv4Addr::new(10, 9, 0, 5));
        assert_eq!(pool.next_address(), Some((Ipv4Addr::new(10, 9, 0, 2), 2)));
        pool.release(Ipv4Addr::new(10, 9, 0, 2));
        assert_eq!(pool.next_address(), Some((Ipv4Addr::new(10, 9, 0, 5), 5)));
        pool.begin(pool.network.clone(), Some(u32::MAX));
        pool.release(Ipv4Addr::new(10, 9, 0, 1));
        assert_eq!(pool.next_address(), Some((Ipv4Addr::new(10, 9, 0, 1), 1)), "whatever was recorded");
        let mut pool = Pool { network: pool.network, ..Pool::default() };
        pool.take_address(Ipv4Addr::new(10, 9, 0, 3));
        assert_eq!(
            pool.next_address(),
            Some((Ipv4Addr::new(10, 9, 0, 4), 4)),
            "after those that go on, without a record"
        );
    }
}
