//! Whole requests against a server in this process, one file a theme.

mod addresses;
mod admission;
mod credentials;
mod definitions;
mod discovery;
mod eventing;
mod flow;
#[path = "../../../proxy/tests/support/frames.rs"]
mod frames;
mod idle;
mod jobs;
mod large;
mod limits;
mod lists_and_watches;
mod mines;
mod objects;
mod panics;
mod patches;
mod pods;
mod promises;
mod quotas;
mod rbac;
mod serving;
mod streams;
mod subresources;
mod support;
