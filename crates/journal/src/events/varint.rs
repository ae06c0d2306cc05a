//! Numbers and names as the event log writes them: seven bits a byte, the lowest first.

/// Longest number, bytes.
const LONGEST: usize = 10;

/// Appends a number.
pub(crate) fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends bytes and, before them, how many they are.
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Takes what was put, in order, off the front of `rest`. `None` where it does not stand there.
pub(crate) struct Take<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Take<'a> {
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for (at, byte) in self.rest.iter().take(LONGEST).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << (7 * at);
            if shifted >> (7 * at) != bits {
                return None;
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Some(number);
            }
        }
        None
    }

    pub(crate) fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// So many of what `item` takes. Each is a byte at least, so that a wrong count asks for no memory.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.number()?).ok().filter(|count| *count <= self.rest.len())?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Some(items)
    }

    /// Whether nothing is left over.
    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_and_cut_or_oversized_ones_do_not() {
        for number in (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]).chain([u64::MAX]) {
            let mut bytes = Vec::new();
            put(number, &mut bytes);
            let mut take = Take { rest: &bytes };
            assert_eq!((take.number(), take.is_done()), (Some(number), true));
            assert_eq!(Take { rest: &bytes[..bytes.len() - 1] }.number(), None);
        }
        assert_eq!(Take { rest: &[0xff; 11] }.number(), None);
        assert_eq!(Take { rest: &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2] }.number(), None);
        assert_eq!(Take { rest: &[200, 1, 2] }.list(Take::number), None);
    }
}
