//! Names as the machine resolves them, in the threads that the system's resolver blocks: so many at a time, of which one
//! namespace has a part, so that names whose servers do not answer take nobody else's threads. What the resolver says of a name
//! that it does not find is remembered for a moment, for everybody; that somebody waited in vain for a turn or an answer is not:
//! it says nothing of the name.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use knoll_bounds::{Cache, Turns};
use tokio::time::{Instant, timeout_at};

use super::Resolve;

/// Look-ups at a time, and one part in so many of them for one namespace.
const MOST: usize = 32;
const PARTS: usize = 8;
/// How long a name is looked up, and waits to be.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a name that was not found is not looked up again.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Most names of which that is remembered, and one part in so many of them for one namespace.
const MOST_FAILED: usize = 1024;
const FAILED_PARTS: usize = 4;

tokio::task_local! {
    /// The namespace for which names are looked up.
    static WHOSE: Arc<str>;
}

/// Looks up for a namespace whatever names `work` needs.
pub(super) async fn for_namespace<T>(whose: Arc<str>, work: impl Future<Output = T>) -> T {
    WHOSE.scope(whose, work).await
}

/// Finds addresses, and may block.
type Find = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// As the machine resolves names: at most 32 at a time, of which one namespace has a part, and for at most 10 s.
pub fn resolve_as_the_machine_does() -> Resolve {
    resolve_by(Arc::new(|host| Ok((host, 0).to_socket_addrs()?.collect())))
}

fn resolve_by(find: Find) -> Resolve {
    let failed = Mutex::new(Cache::new(MOST_FAILED, FAILED_PARTS));
    let names = Arc::new(Names { find, turns: Turns::new(MOST, PARTS), failed });
    Arc::new(move |host| {
        // A connection that is made for whoever comes next is nobody's.
        let whose = WHOSE.try_with(Arc::clone).unwrap_or_else(|_| "".into());
        let names = names.clone();
        Box::pin(async move { names.look_up(host, whose).await })
    })
}

struct Names {
    find: Find,
    turns: Turns,
    /// By name, each of the namespace for which it was looked up.
    failed: Mutex<Cache<Arc<str>, Box<str>, Failed>>,
}

/// A name that was not found.
struct Failed {
    /// Until when that is remembered.
    until: Instant,
    kind: io::ErrorKind,
    said: Box<str>,
}

impl Names {
    async fn look_up(self: &Arc<Self>, host: String, whose: Arc<str>) -> io::Result<Vec<SocketAddr>> {
        if let Some(error) = self.remembered(&host) {
            return Err(error);
        }
        let until = Instant::now() + LONGEST;
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("{host} is not found within {LONGEST:?}")));
        timeout_at(until, self.found(host.clone(), whose)).await.unwrap_or_else(late)
    }

    async fn found(self: &Arc<Self>, host: String, whose: Arc<str>) -> io::Result<Vec<SocketAddr>> {
        let turn = self.turns.take(&whose, 1).await;
        let names = self.clone();
        // The thread has its turn until it is free, whoever still waits for it.
        let finding = tokio::task::spawn_blocking(move || {
            let found = (names.find)(&host);
            if let Err(error) = &found {
                names.remember(whose, &host, error);
            }
            drop(turn);
            found
        });
        finding.await.map_err(io::Error::other)?
    }

    fn remembered(&self, host: &str) -> Option<io::Error> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let Failed { until, kind, said } = failed.get(host)?;
        (*until > Instant::now()).then(|| io::Error::new(*kind, said.to_string()))
    }

    fn remember(&self, whose: Arc<str>, host: &str, error: &io::Error) {
        let (kind, said) = (error.kind(), error.to_string().into());
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.keep(whose, host.into(), Failed { until: Instant::now() + REMEMBERED, kind, said });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    };

    use tokio::task::JoinSet;

    use super::*;

    /// Names that begin with "slow" are found once the sender is gone, others at once. How many are being looked up.
    fn slowly() -> (Resolve, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (gone, wait) = mpsc::channel::<()>();
        let (wait, busy) = (Mutex::new(wait), Arc::new(AtomicUsize::new(0)));
        let counted = busy.clone();
        let find: Find = Arc::new(move |host| {
            if host.starts_with("slow") {
                counted.fetch_add(1, SeqCst);
                let sent = wait.lock().unwrap_or_else(PoisonError::into_inner).recv();
                assert!(sent.is_err(), "nothing is sent");
            }
            Ok(vec![SocketAddr::from(([10, 0, 0, 1], 0))])
        });
        (resolve_by(find), gone, busy)
    }

    #[tokio::test]
    async fn names_that_take_long_take_a_part_of_the_threads_and_others_are_found() {
        let (resolve, gone, busy) = slowly();
        let look_up = |whose: &str, host: String| {
            let resolve = resolve.clone();
            // A connector calls it where the namespace is known.
            for_namespace(whose.into(), async move { resolve(host).await })
        };
        let mut slow = JoinSet::new();
        (0..100).for_each(|at| drop(slow.spawn(look_up("evil", format!("slow{at}.example")))));
        // And a first turn, for which some are kept.
        let part = MOST / PARTS + 1;
        while busy.load(SeqCst) < part {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let found = look_up("good", "good.example".to_owned()).await.expect("found");
        assert_eq!((found, busy.load(SeqCst)), (vec![SocketAddr::from(([10, 0, 0, 1], 0))], part));
        drop(gone);
        while let Some(ended) = slow.join_next().await {
            assert!(ended.expect("no panic").is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_one_waited_for_in_vain_is_found_for_others() {
        let (resolve, gone, busy) = slowly();
        let look_up = |whose: &str, host: &str| {
            let (resolve, host) = (resolve.clone(), host.to_owned());
            for_namespace(whose.into(), async move { resolve(host).await })
        };
        let part = MOST / PARTS + 1;
        let mut slow = JoinSet::new();
        (0..part).for_each(|at| drop(slow.spawn(look_up("evil", &format!("slow{at}.example")))));
        while busy.load(SeqCst) < part {
            tokio::task::yield_now().await;
        }
        let waits = tokio::spawn(look_up("evil", "good.example"));
        tokio::task::yield_now().await;
        tokio::time::advance(LONGEST).await;
        let late = waits.await.expect("no panic").expect_err("its turn did not come");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        while let Some(ended) = slow.join_next().await {
            assert_eq!(ended.expect("no panic").expect_err("too late").kind(), io::ErrorKind::TimedOut);
        }
        assert!(look_up("good", "good.example").await.is_ok());
        drop(gone);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_found_is_not_looked_up_again_at_once() {
        let times = Arc::new(AtomicUsize::new(0));
        let counted = times.clone();
        let resolve = resolve_by(Arc::new(move |_| {
            counted.fetch_add(1, SeqCst);
            Err(io::Error::new(io::ErrorKind::NotFound, "no such name"))
        }));
        for _ in 0..3 {
            let error = resolve("nowhere.example".to_owned()).await.expect_err("nowhere");
            assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::NotFound, "no such name"));
        }
        assert_eq!(times.load(SeqCst), 1);
        tokio::time::advance(REMEMBERED).await;
        resolve("nowhere.example".to_owned()).await.expect_err("nowhere");
        assert_eq!(times.load(SeqCst), 2);
    }
}
