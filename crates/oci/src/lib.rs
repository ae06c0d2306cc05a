//! Images: references, credentials, pulling, layers unpacked once and shared, tarballs, and the embedded
//! registry, all over one content-addressed store.

mod access;
mod archive;
mod blobs;
mod challenge;
mod client;
mod collect;
mod config;
mod digest;
mod durable;
mod holds;
mod keychain;
mod layer;
mod layers;
mod limits;
mod local;
mod manifest;
mod pace;
mod pins;
mod pull;
mod reference;
mod registry;
mod remote;
mod tarfile;

pub use archive::LoadError;
pub use challenge::{Challenge, parse_challenges};
pub use collect::Collected;
pub use config::ImageConfig;
pub use digest::{Digest, DigestError};
pub use holds::ImageHold;
pub use keychain::{Keychain, KeychainError};
pub use layer::{LayerError, Skipped, Unpacked, decompress, unpack_layer};
pub use limits::{LimitError, Limits};
pub use local::{Config, Image, ImageStore, OpenError, StoreError};
pub use manifest::{Descriptor, Manifest, Platform, parse_manifest};
pub use pull::{Progress, PullError, PullPolicy};
pub use reference::{Reference, ReferenceError};
pub use registry::{Action, Authorize, Locality, Registry, RegistryCounts, RegistryPolicy, Verdict, machine_login};
pub use tarfile::{Entries, Entry, EntryKind, PaxRecord, Segment, TarError, parse_pax};
