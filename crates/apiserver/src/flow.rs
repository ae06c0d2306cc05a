//! How many requests are in flight: as kube-apiserver bounds them, and of that a part for each client.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::Request;
use knoll_bounds::{Share, Shares, Turn, Turns};

use crate::{
    attributes::UserInfo,
    query::{self, Query},
    status::Status,
};

/// Most requests at once that change nothing (`--max-requests-inflight`), and most of one client.
const READING: (usize, usize) = (400, 100);
/// Most requests at once that change something (`--max-mutating-requests-inflight`), and most of one client.
const WRITING: (usize, usize) = (200, 50);
/// Most watches, followed logs and commands at once, and most of one client: a process of controllers has about fifty.
const LONG: (usize, usize) = (4096, 1024);
/// Most memory of long answers that wait for their clients to take them, and of those of one client, in MiB.
const ANSWERS: (usize, usize) = (1024, 256);
/// Most bytes of stored objects that are read for long lists at a time, and one part in so many of them for one client.
const READ: (usize, usize) = (512 << 20, 4);
/// How many bytes a list may read without waiting for its turn.
const SHORT: usize = 1 << 20;
/// How the users begin that are ServiceAccounts.
const ACCOUNTS: &str = "system:serviceaccount:";

/// How long a request may take that is not made to last.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// A place in flight.
pub(crate) type Place = Arc<Share<String>>;

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Reading,
    Writing,
    /// It lasts as long as its client wants.
    Long,
}

impl RequestKind {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        // Decoded, as whoever finds the way reads them.
        let segments = request.uri().path().split('/').filter(|s| !s.is_empty()).map(|s| query::decode(s, false));
        let segments: Vec<String> = segments.collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let streams = matches!(
            segments.as_slice(),
            ["api", "v1", "namespaces", _, "pods", _, "log" | "exec" | "attach" | "portforward"]
        );
        let query = Query::parse(request.uri().query());
        let watches =
            query.flag("watch") || matches!(segments.as_slice(), ["api", _, "watch", ..] | ["apis", _, _, "watch", ..]);
        match request.method().as_str() {
            _ if streams => RequestKind::Long,
            "GET" | "HEAD" if watches => RequestKind::Long,
            "GET" | "HEAD" | "OPTIONS" => RequestKind::Reading,
            _ => RequestKind::Writing,
        }
    }
}

/// The places there are.
pub(crate) struct Flow {
    reading: Arc<Shares<String>>,
    writing: Arc<Shares<String>>,
    long: Arc<Shares<String>>,
    answers: Arc<Shares<String>>,
    lists: Turns,
    turns: Turns,
}

impl Default for Flow {
    fn default() -> Self {
        let shares = |(all, each)| Shares::new(all, each);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            reading: shares(READING),
            writing: shares(WRITING),
            long: shares(LONG),
            answers: shares(ANSWERS),
            lists: Turns::of_bytes(READ.0, READ.1),
            turns: Turns::new(cores, 2),
        }
    }
}

impl Flow {
    /// A place for a request of `who`.
    ///
    /// # Errors
    /// 429 when there is none.
    pub(crate) fn enter(&self, kind: RequestKind, who: &str) -> Result<Place, Status> {
        let shares = match kind {
            RequestKind::Reading => &self.reading,
            RequestKind::Writing => &self.writing,
            RequestKind::Long => &self.long,
        };
        shares.take(who.to_owned()).map(Arc::new).ok_or_else(too_many)
    }

    /// A turn of `who` to compute something large: as many at once as there are cores, of one client half of that, so that they
    /// leave the half of each to everybody else. Waits for its turn; whoever waits has a place in flight.
    pub(crate) async fn turn(&self, who: &str) -> Turn {
        self.turns.take(&who.into(), 1).await
    }

    /// A turn for a list of `who` that reads so many bytes; nothing where it is short. Waits for its turn, as others of this
    /// client do, and whoever waits has a place in flight.
    pub(crate) async fn list(&self, bytes: usize, who: &str) -> Option<Turn> {
        if bytes <= SHORT {
            return None;
        }
        Some(self.lists.take_bytes(&who.into(), bytes).await)
    }

    /// Room for an answer of `bytes` to `who`, until it is handed over.
    ///
    /// # Errors
    /// 429 when there is none.
    pub(crate) fn answer(&self, bytes: u64, who: &str) -> Result<Place, Status> {
        let units = usize::try_from(bytes.div_ceil(1 << 20)).unwrap_or(usize::MAX);
        self.answers.take_many(who.to_owned(), units).map(Arc::new).ok_or_else(too_many)
    }
}

/// Whose part of what is in flight a request takes. Who nobody knows is told apart by address, and ServiceAccounts by
/// their namespace: whoever may make one may make a thousand.
pub(crate) fn who(identity: &UserInfo, address: IpAddr) -> String {
    if identity.user == "system:anonymous" {
        return address.to_string();
    }
    match identity.user.strip_prefix(ACCOUNTS).and_then(|account| account.split_once(':')) {
        Some((namespace, _)) => format!("{ACCOUNTS}{namespace}:*"),
        None => identity.user.clone(),
    }
}

fn too_many() -> Status {
    Status::new(429, "TooManyRequests", "Too many requests, please try again later.").retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_does_not_keep_out_the_others() {
        let flow = Flow::default();
        let held: Vec<Place> = (0..READING.1).map(|_| flow.enter(RequestKind::Reading, "a").unwrap()).collect();
        let refused = flow.enter(RequestKind::Reading, "a").err().unwrap();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        assert!(flow.enter(RequestKind::Reading, "b").is_ok());
        assert!(flow.enter(RequestKind::Writing, "a").is_ok());
        drop(held);
        assert!(flow.enter(RequestKind::Reading, "a").is_ok());
    }

    #[test]
    fn answers_that_nobody_takes_have_a_bound() {
        let flow = Flow::default();
        let list = 100 << 20;
        let held: Vec<Place> = (0..2).map(|_| flow.answer(list, "a").unwrap()).collect();
        assert_eq!(flow.answer(list, "a").err().unwrap().code, 429);
        assert!(flow.answer(list, "b").is_ok());
        drop(held);
        assert!(flow.answer(list, "a").is_ok());
    }

    #[test]
    fn requests_are_told_apart_by_how_long_they_last() {
        let kind =
            |method: &str, uri: &str| RequestKind::of(&Request::builder().method(method).uri(uri).body(()).unwrap());
        assert_eq!(kind("GET", "/api/v1/pods?watch=true"), RequestKind::Long);
        assert_eq!(kind("GET", "/apis/apps/v1/watch/deployments"), RequestKind::Long);
        assert_eq!(kind("POST", "/api/v1/namespaces/a/pods/p/exec?command=x"), RequestKind::Long);
        assert_eq!(kind("GET", "/api/v1/namespaces/a/pods/p/%65xec?command=x"), RequestKind::Long);
        assert_eq!(kind("GET", "/api/v1/%77atch/pods"), RequestKind::Long);
        assert_eq!(kind("GET", "/api/v1/namespaces/a/pods/p"), RequestKind::Reading);
        assert_eq!(kind("DELETE", "/api/v1/namespaces/a/pods?watch=true"), RequestKind::Writing);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_many_large_writes_waits_behind_himself() {
        let flow = Flow { turns: Turns::new(2, 2), ..Flow::default() };
        let first = flow.turn("many").await;
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, flow.turn("many")).await.is_err(), "it has its part");
        let other = tokio::time::timeout(soon, flow.turn("other")).await.expect("another has a turn");
        drop(first);
        tokio::time::timeout(soon, flow.turn("many")).await.expect("one after the other");
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn long_lists_of_one_client_leave_room_to_others() {
        let flow = Flow::default();
        let soon = Duration::from_secs(1);
        assert!(flow.list(SHORT, "many").await.is_none(), "a short one takes none");
        let mut held = Vec::new();
        while let Ok(turn) = tokio::time::timeout(soon, flow.list(READ.0, "many")).await {
            held.push(turn);
            assert!(held.len() <= READ.1, "there is an end");
        }
        tokio::time::timeout(soon, flow.list(READ.0, "other")).await.expect("another has a turn");
    }
}
