//! One line of a log file: `2026-01-02T03:04:05.678901234Z stdout F text`.

use jiff::Timestamp;

/// A line of the CRI log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its time, RFC 3339.
    pub stamp: &'a str,
    /// Whether it was printed on stderr.
    pub stderr: bool,
    /// Whether the next line of the same stream continues it.
    pub partial: bool,
    /// What was printed, without the line break.
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line without its line break.
    pub fn parse(raw: &'a [u8]) -> Option<Line<'a>> {
        let mut parts = raw.splitn(4, |b| *b == b' ');
        let stamp = std::str::from_utf8(parts.next()?).ok()?;
        let stderr = match parts.next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        // Tags are separated by colons; the first says whether the line is whole.
        let partial = match parts.next()?.split(|b| *b == b':').next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Line { stamp, stderr, partial, text: parts.next().unwrap_or_default() })
    }

    /// When it was printed.
    pub fn time(&self) -> Option<Timestamp> {
        self.stamp.parse().ok()
    }
}

/// The text of the last lines in a piece of a log file, at most `lines` and `bytes` of them.
pub fn last_lines(raw: &[u8], lines: usize, bytes: usize) -> String {
    let mut out = Vec::new();
    let all: Vec<_> = raw.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
    for raw in &all[all.len().saturating_sub(lines)..] {
        let Some(line) = Line::parse(raw) else { continue };
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
    }
    let from = out.len().saturating_sub(bytes);
    String::from_utf8_lossy(&out[from..]).into_owned()
}
