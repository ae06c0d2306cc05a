//! Names of children, derived from their parents and never counted.

use md5::{Digest, Md5};

/// Longest name Kubernetes takes for a label value or a DNS label.
const LONGEST: usize = 63;
/// Length of an md5 in hex.
const HASH: usize = 32;
/// What is left of the parent's name beside a hash.
const HEAD: usize = LONGEST - HASH;

/// The name of a child: `parent` followed by `suffix`, shortened with a hash where that exceeds 63 bytes.
///
/// Byte for byte what `knative.dev/pkg/kmeta.ChildName` gives; clients predict these names.
pub fn child(parent: &str, suffix: &str) -> String {
    if parent.len() + suffix.len() <= LONGEST {
        return format!("{parent}{suffix}");
    }
    if suffix.len() < HEAD {
        let head = &parent[..floor_boundary(parent, HEAD - suffix.len())];
        return format!("{head}{}{suffix}", md5_hex(parent));
    }
    let head = &parent[..floor_boundary(parent, HEAD.min(parent.len()))];
    let mut name = format!("{head}{}", md5_hex(&format!("{parent}{suffix}")));
    let room = LONGEST - name.len();
    name.push_str(&suffix[..floor_boundary(suffix, room.min(suffix.len()))]);
    name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The md5 of a text, in hex.
pub fn md5_hex(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::child;

    #[test]
    fn short_names_are_joined() {
        assert_eq!(child("hello-00001", "-deployment"), "hello-00001-deployment");
    }

    #[test]
    fn long_names_keep_the_suffix_and_fit() {
        let name = child(&"a".repeat(63), "-deployment");
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("-deployment"));
    }

    #[test]
    fn the_first_revision_of_the_longest_service_is_named_as_clients_predict() {
        let service = format!("{}xyz", "abcdefghi-".repeat(6));
        assert_eq!(child(&service, "-00001"), "abcdefghi-abcdefghi-abcde43b3f836499d76de9e3b74aa122d4455-00001");
    }
}
