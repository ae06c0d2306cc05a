//! Ports of a sandbox whose program listens on 127.0.0.1 alone, led there from the sandbox's address.
//!
//! Packets are rewritten inside the sandbox's own network namespace, so nothing stands between client and program, and
//! sandboxes that do not need it have no rule. Only the ports that are named become reachable: a packet that arrives
//! for 127.0.0.0/8 itself is dropped before it is rewritten. Blocking.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::nft::{self, Batch, Expr, REG};

/// Our table in a sandbox's namespace.
const TABLE: &str = "knoll-loopback";
/// Lets packets from outside reach 127.0.0.0/8 once they are rewritten, and answers leave.
const SETTING: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";
const TCP: u8 = 6;

/// Leads TCP connections to `ports` of `address` to the same ports of 127.0.0.1, in the network namespace bound at
/// `namespace`. Replaces what was led there before.
///
/// # Errors
/// When the namespace is gone, or the kernel refuses; nothing is led anywhere then.
pub fn lead(namespace: &Path, address: Ipv4Addr, ports: &[u16]) -> io::Result<()> {
    inside(namespace, || {
        let mut batch = Batch::new(TABLE);
        batch.replace_table();
        // The guard first: there must be no moment in which other ports are open.
        guard(&mut batch);
        rewrite(&mut batch, address, ports);
        batch.commit()?;
        fs::write(SETTING, "1")
    })
}

/// Leads nothing to 127.0.0.1 any more.
///
/// # Errors
/// When the namespace is gone, or the kernel refuses.
pub fn stop(namespace: &Path) -> io::Result<()> {
    inside(namespace, || {
        fs::write(SETTING, "0")?;
        if nft::table_exists(TABLE)? {
            let mut batch = Batch::new(TABLE);
            batch.delete_table();
            batch.commit()?;
        }
        Ok(())
    })
}

fn guard(batch: &mut Batch) {
    batch.chain("guard", Some(nft::FILTER_PREROUTING));
    batch.rule("guard", &[Expr::arrival(REG), Expr::compare(REG, true, b"lo\0"), Expr::accept()]);
    let to_loopback = [Expr::destination(REG), Expr::mask(REG, 8), Expr::compare(REG, true, &[127, 0, 0, 0])];
    batch.rule("guard", &to_loopback.into_iter().chain([Expr::drop()]).collect::<Vec<_>>());
}

fn rewrite(batch: &mut Batch, address: Ipv4Addr, ports: &[u16]) {
    batch.chain("lead", Some(nft::PREROUTING));
    for port in ports {
        let port = port.to_be_bytes();
        let rule = [
            Expr::destination(REG),
            Expr::compare(REG, true, &address.octets()),
            Expr::protocol(REG),
            Expr::compare(REG, true, &[TCP]),
            Expr::load(true, 2, 2, REG),
            Expr::compare(REG, true, &port),
            Expr::value(&Ipv4Addr::LOCALHOST.octets(), REG + 4),
            Expr::value(&port, REG + 5),
            Expr::redirect(REG + 4, REG + 5),
        ];
        batch.rule("lead", &rule);
    }
}

/// Does something in another network namespace, on a thread that ends with it.
fn inside<T: Send>(namespace: &Path, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let there = File::open(namespace)?;
    let entered = move || {
        setns(there, CloneFlags::CLONE_NEWNET)?;
        act()
    };
    let outcome = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("loopback".into()).spawn_scoped(scope, entered)?;
        thread.join().map_err(|_| io::Error::other("a thread in a sandbox's network panicked"))
    });
    outcome?
}
