//! The small controllers that a cluster would bring along; run only where Knoll is its own cluster.

mod cron_job;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod garbage_collection;
mod hash;
mod job;
mod mirroring;
mod namespace;
mod node_load;
mod pods;
mod replica_set;
mod root_ca;
mod scheduler;
mod selector;
mod service_account;

#[cfg(test)]
mod fixture;

pub(crate) use self::{
    cron_job::NAME as CRON_JOB,
    garbage_collection::{NAME as GARBAGE_COLLECTION, collect, owners_and_dependents},
    hash::fingerprint,
    node_load::NodeLoads,
    selector::matches,
};
use crate::Row;

/// Every controller of this module.
pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        deployment::ROW,
        replica_set::ROW,
        scheduler::ROW,
        endpoints::ROW,
        mirroring::ROW,
        namespace::ROW,
        service_account::ROW,
        root_ca::ROW,
        job::ROW,
        job::RELEASE,
        cron_job::ROW,
    ];
    rows.extend(garbage_collection::rows());
    rows
}
