//! Names and addresses: what pods find in their files, who answers their questions, where Services lead.

pub mod dns;
pub mod files;
pub mod lean;
pub mod services;
