//! The Kubernetes API over the store.
//!
//! [`ApiServer::handle`] is the one entry, for sockets ([`ApiServer::serve_tls`]) and for controllers in this
//! process ([`ApiServer::client`]). Objects are JSON trees; what sets kinds apart stands in the rows of
//! [`resources`].

mod accept;
mod addresses;
mod admission;
mod aggregation;
pub mod attributes;
pub mod auth;
pub mod authority;
mod bindings;
pub mod body;
mod bootstrap;
mod breath;
mod call;
mod claims;
mod client;
mod config;
pub mod counters;
mod defaults;
mod derived;
mod discovery;
mod dispatch;
mod documents;
mod expiry;
mod external;
mod fields;
mod flow;
mod follow;
mod hooks;
mod label_selector;
mod metadata;
mod narrow;
pub mod node_backend;
mod object;
mod objects;
mod panics;
pub mod parsers;
mod patches;
mod policy_rule;
mod purge;
mod query;
mod quota;
mod readable;
pub mod resources;
mod respond;
mod reviews;
mod route;
mod selectors;
mod serve;
mod server;
pub mod status;
mod streams;
mod subresources;
mod tables;
mod tend;
mod validation;
mod verbs;
mod view;
mod words;

pub use self::{
    attributes::UserInfo, body::Body, config::Config, counters::Counters, server::ApiServer, status::Status,
};
