//! Tests of what all threads share. They stand apart from what they test, since `interleavings.rs` compiles those files
//! a second time.

mod balance;
pub(crate) mod endpoint_pool;
mod interleavings;
