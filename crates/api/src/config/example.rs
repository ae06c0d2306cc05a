//! The `_example` block of a ConfigMap, and the checksum that tells whether somebody edited it by mistake.

use super::Data;

/// Key of the block.
pub const EXAMPLE_KEY: &str = "_example";
/// Annotation with the block's checksum.
pub const CHECKSUM_ANNOTATION: &str = "knative.dev/example-checksum";

/// The checksum of a block: 8 hex digits of a CRC-32. Space around it and blank lines do not count.
pub fn checksum(example: &str) -> String {
    let mut normal = String::with_capacity(example.len());
    let mut rest = example.trim();
    while let Some(at) = next_newline(rest) {
        normal += &rest[..at];
        // Shipped checksums were made with a backslash and an n in place of each run of newlines.
        normal += "\\n";
        rest = &rest[at..];
        while next_newline(rest) == Some(0) {
            rest = rest.strip_prefix('\r').unwrap_or(rest);
            rest = &rest[1..];
        }
    }
    normal += rest;
    format!("{:08x}", crc32fast::hash(normal.as_bytes()))
}

/// Where the next `\n` or `\r\n` begins.
fn next_newline(text: &str) -> Option<usize> {
    let at = text.find('\n')?;
    Some(if text[..at].ends_with('\r') { at - 1 } else { at })
}

/// What is wrong with a map's example block, if anything.
pub(crate) fn problem(data: &Data, annotations: &Data) -> Option<String> {
    let example = data.get(EXAMPLE_KEY)?;
    let recorded = annotations.get(CHECKSUM_ANNOTATION)?;
    let computed = checksum(example);
    (*recorded != computed).then(|| {
        format!(
            "the update modifies a key in {EXAMPLE_KEY:?} which is probably not what you want. Instead, copy the \
             respective setting to the top-level of the ConfigMap, directly below {:?}",
            "data"
        )
    })
}
