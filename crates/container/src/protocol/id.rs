//! Names of things: they become directory and cgroup names, so they are checked when they are made.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id: use 1 to 128 of A-Z a-z 0-9 _ . -, not beginning with a dot or a dash")]
pub struct InvalidId(String);

fn check(text: String) -> Result<String, InvalidId> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let good = (1..=128).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with(['.', '-']);
    if good { Ok(text) } else { Err(InvalidId(text)) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks a text.
            pub fn new(text: impl Into<String>) -> Result<$name, InvalidId> {
                check(text.into()).map($name)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<$name, InvalidId> {
                $name::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A sandbox: what Kubernetes calls a pod. The node uses the pod's uid.
    SandboxId
);
id!(
    /// A container, unique over all sandboxes. The node uses `<pod uid>_<container>_<attempt>` or a random hex text.
    ContainerId
);

id!(
    /// A listening socket that the monitor keeps for the server.
    ListenerName
);

/// A program started in a running container, numbered by the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_their_directory() {
        for bad in ["", ".", "..", "a/b", "-rf", "a b", "a\0", &"x".repeat(129)] {
            assert!(SandboxId::new(bad).is_err(), "{bad:?}");
        }
        assert!(SandboxId::new("7e3f-1.a_b").is_ok());
        assert!(serde_json::from_str::<ContainerId>("\"../x\"").is_err());
    }
}
