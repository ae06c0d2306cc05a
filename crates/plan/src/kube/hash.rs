//! Short, stable names: the same input gives the same suffix in every process.

/// Letters and digits that form no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest name that still leaves room for a suffix of five in a DNS label.
const LONGEST_BASE: usize = 58;

/// A 64-bit hash of `parts`; parts are kept apart, so `["ab", "c"]` and `["a", "bc"]` differ.
pub(super) fn of(parts: &[&str]) -> u64 {
    // FNV-1a, then a finalizer, since short inputs leave the high bits of FNV nearly unmixed.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash
}

/// A hash of `parts` as text that is safe in annotations.
pub(crate) fn fingerprint(parts: &[&str]) -> String {
    format!("{:016x}", of(parts))
}

/// `hash` in `length` characters that are safe in names and label values.
pub(super) fn text(mut hash: u64, length: usize) -> String {
    let letters = ALPHABET.len() as u64;
    (0..length)
        .map(|_| {
            let letter = ALPHABET[usize::try_from(hash % letters).unwrap_or_default()];
            hash /= letters;
            char::from(letter)
        })
        .collect()
}

/// `base-` with a suffix of five characters, shortened as `generateName` would.
pub(super) fn name(base: &str, parts: &[&str]) -> String {
    let mut end = base.len().min(LONGEST_BASE - 1);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{}", &base[..end], text(of(parts), 5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
    }

    #[test]
    fn long_bases_leave_room_for_the_suffix() {
        let name = name(&"a".repeat(80), &["x"]);
        assert_eq!(name.len(), 63);
        assert_eq!(&name[57..58], "-");
    }

    #[test]
    fn neighbours_differ_in_their_first_letters() {
        let names: std::collections::BTreeSet<_> = (0..500).map(|n| name("a", &["uid", &n.to_string()])).collect();
        assert_eq!(names.len(), 500);
    }
}
