//! Whole requests against a server in this process, one file a theme.

mod admission;
mod discovery;
mod lists_and_watches;
mod objects;
mod patches;
mod quotas;
mod streams;
mod support;
