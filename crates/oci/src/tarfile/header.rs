//! One 512-byte header block.

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum holds.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

/// The bytes before the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in GNU's binary form. `None` when it is neither, or does not fit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        let digits = text(field).trim_ascii();
        return if digits.is_empty() { Some(0) } else { i64::from_str_radix(str::from_utf8(digits).ok()?, 8).ok() };
    }
    // Two's complement; the highest bit only says that the number is binary, the next one is the sign.
    let start = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(first | 0x80) - 0x100 };
    let value = rest.iter().try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(i128::from(*byte)));
    i64::try_from(value?).ok()
}

impl<'a> Header<'a> {
    /// Checks the sum of `block`.
    pub(super) fn checked(block: &'a [u8; BLOCK]) -> Option<Self> {
        let at = |index: usize| if (148..156).contains(&index) { b' ' } else { block[index] };
        let sum: i64 = (0..BLOCK).map(|index| i64::from(at(index))).sum();
        // Some old programs summed signed bytes.
        let signed: i64 = (0..BLOCK).map(|index| i64::from(at(index).cast_signed())).sum();
        let told = number(&block[148..156])?;
        (told == sum || told == signed).then_some(Self(block))
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    /// The path, with its prefix where the form has one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let is_posix = &self.0[257..263] == b"ustar\0";
        let prefix = if is_posix { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> &'a [u8] {
        text(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub(super) fn mtime(&self) -> Option<i64> {
        number(&self.0[136..148])
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Option<(i64, i64)> {
        Some((number(&self.0[329..337])?, number(&self.0[337..345])?))
    }

    /// GNU's first four stretches of a sparse file, whether more follow, and the file's whole size.
    pub(super) fn sparse(&self) -> Option<(&'a [u8], bool, i64)> {
        self.is_gnu().then_some(())?;
        Some((&self.0[386..482], self.0[482] != 0, number(&self.0[483..495])?))
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_binary_and_never_wrap() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 644 \0\0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(number(b"12345678"), None);
        assert_eq!(number(b"-1\0\0\0\0\0\0"), Some(-1));
        assert_eq!(number(b""), None);
    }
}
