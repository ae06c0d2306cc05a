//! Sandboxes and containers on one Linux machine.
//!
//! A small single-threaded *monitor* process forks every container, holds its output, reaps it and outlives the
//! server. [`protocol`] is the stable seam between the two, [`client`] the server's side of it, `monitor` the
//! process itself, [`launch`] starts it. [`network`], [`loopback`] and `nft` prepare the host's routing and service addresses;
//! [`quota`] limits directories;
//! `doctor` says what a machine lacks, and `reset` removes every trace.
//!
//! Nothing here knows pods, images or Kubernetes. This is the only crate of the workspace with unsafe code.

mod capability;
mod cgroup;
pub mod client;
pub mod doctor;
mod init;
pub mod launch;
pub mod loopback;
pub mod monitor;
mod netlink;
pub mod network;
mod nft;
pub mod parsers;
pub mod protocol;
pub mod quota;
pub mod reset;
mod seccomp;
mod sys;
mod wire;
