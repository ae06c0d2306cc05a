//! Values as they are kept in memory: as they were written while they are new, packed once they are cold.
//!
//! Objects of one kind are alike but for names, identifiers and times. A dictionary of a few of them lets the others
//! be kept in a tenth of their bytes, and read back in microseconds.

use std::{cell::RefCell, fmt, sync::Arc};

use bytes::Bytes;
use zstd::zstd_safe::{DCtx, get_frame_content_size};

/// Longest value that is unpacked: no more than a record of the log holds.
const LONGEST: u64 = 64 << 20;

/// Bytes that other values are described by.
#[derive(PartialEq, Eq)]
pub(crate) struct Dictionary(pub(crate) Box<[u8]>);

/// A value, in the fewest bytes.
#[derive(Clone)]
pub(crate) struct Packed {
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) dictionary: Arc<Dictionary>,
}

/// A value.
#[derive(Clone)]
pub(crate) enum Value {
    Plain(Bytes),
    Packed(Packed),
}

/// A packed value does not unpack: memory or a file went bad in a way no checksum saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packed value cannot be unpacked")]
pub struct Unreadable;

thread_local! {
    static UNPACKER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

impl Packed {
    /// How long it is unpacked; nothing where that cannot be told.
    fn length(&self) -> Option<usize> {
        let length = get_frame_content_size(&self.bytes).ok().flatten().filter(|length| *length <= LONGEST)?;
        usize::try_from(length).ok()
    }

    fn unpack(&self) -> Result<Bytes, Unreadable> {
        let length = self.length().ok_or(Unreadable)?;
        let mut plain = Vec::with_capacity(length);
        let unpacked = UNPACKER
            .with_borrow_mut(|unpacker| unpacker.decompress_using_dict(&mut plain, &self.bytes, &self.dictionary.0));
        match unpacked {
            Ok(count) if count == length => Ok(plain.into_boxed_slice().into()),
            _ => Err(Unreadable),
        }
    }
}

impl Value {
    /// The value as it was written.
    pub(crate) fn read(&self) -> Result<Bytes, Unreadable> {
        match self {
            Value::Plain(bytes) => Ok(bytes.clone()),
            Value::Packed(packed) => packed.unpack(),
        }
    }

    /// Bytes it has, without reading it.
    pub(crate) fn length(&self) -> usize {
        match self {
            Value::Plain(bytes) => bytes.len(),
            Value::Packed(packed) => packed.length().unwrap_or_default(),
        }
    }

    /// Bytes it is kept in.
    pub(crate) fn kept(&self) -> usize {
        match self {
            Value::Plain(bytes) => bytes.len(),
            Value::Packed(packed) => packed.bytes.len(),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if matches!(self, Value::Plain(_)) { "plain" } else { "packed" };
        write!(f, "{how}({} bytes)", self.kept())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_packed_bytes_make_unpacking_anything_but_an_error() {
        let dictionary = Arc::new(Dictionary(b"some words that come again".to_vec().into()));
        let mut packer = zstd::bulk::Compressor::with_dictionary(3, &dictionary.0).expect("a packer");
        let whole = packer.compress(b"some words that come again, and some that do not").expect("packs");
        let unpack = |bytes: &[u8]| Packed { bytes: bytes.into(), dictionary: dictionary.clone() }.unpack();
        assert_eq!(unpack(&whole).expect("is whole"), "some words that come again, and some that do not");
        for end in 0..whole.len() {
            assert_eq!(unpack(&whole[..end]), Err(Unreadable));
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Wrong bytes may come out, which checksums of files are there for; nothing worse.
            unpack(&flipped).ok();
        }
    }
}
