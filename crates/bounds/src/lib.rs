//! What keeps one user of something from taking it from the others: parts of what all have together, and an end to
//! waiting for who does not go on.
//!
//! [`Shares`] refuse who finds no room, [`Turns`] let them wait, [`Rates`] refuse who has had its part of a while, a [`Cache`]
//! forgets their own, [`Patient`] gives up a client that does not read, [`Lingering`] one that goes on sending after its answer.
//! None of them knows whose users they are; where clients are told apart by address, [`network()`] says who is one.

mod cache;
mod lingering;
mod network;
mod patient;
mod rates;
mod shares;
mod turns;

pub use cache::Cache;
pub use lingering::{LINGER, LINGER_SILENCE, Lingering};
pub use network::network;
pub use patient::{Patience, Patient};
pub use rates::{Rates, Spent};
pub use shares::{Share, Shares};
pub use turns::{Turn, Turns};
