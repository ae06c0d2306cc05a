//! Ending without cutting anyone off: connections are told once, finish their present requests, and close.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How a shutdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection ended by itself.
    Clean,
    /// The grace period passed first; so many connections were cut off.
    Cut(usize),
}

/// The connections of a thread that wait to be told of a drain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parked(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    draining: Cell<bool>,
    places: RefCell<Places>,
}

#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Parked {
    /// Whether the thread drains.
    pub(crate) fn draining(&self) -> bool {
        self.0.draining.get()
    }

    /// Tells all connections, present and to come.
    pub(crate) fn drain(&self) {
        self.0.draining.set(true);
        let wakers: Vec<Waker> = self.0.places.borrow_mut().wakers.iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A place among those who are told.
    pub(crate) fn ticket(&self) -> Ticket {
        let mut places = self.0.places.borrow_mut();
        let place = places.free.pop().unwrap_or_else(|| {
            places.wakers.push(None);
            places.wakers.len() - 1
        });
        Ticket { parked: self.clone(), place }
    }
}

/// A connection's place; dropped when it ends.
#[derive(Debug)]
pub(crate) struct Ticket {
    parked: Parked,
    place: usize,
}

impl Ticket {
    /// Ready once the thread drains.
    pub(crate) fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.parked.draining() {
            return Poll::Ready(());
        }
        let waker = &mut self.parked.0.places.borrow_mut().wakers[self.place];
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits for the drain.
    pub(crate) async fn called(&mut self) {
        std::future::poll_fn(|cx| self.poll_called(cx)).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut places = self.parked.0.places.borrow_mut();
        places.wakers[self.place] = None;
        places.free.push(self.place);
    }
}
