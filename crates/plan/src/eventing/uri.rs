//! URI references, as far as addresses of objects need them (RFC 3986 §5.2).

/// A URI reference in its five parts (RFC 3986 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Splits a text; there is none that cannot be split (RFC 3986 appendix B).
    pub(super) fn of(text: &'a str) -> Reference<'a> {
        let is_scheme = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        };
        let scheme = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme));
        let rest = scheme.map_or(text, |(_, rest)| rest);
        let (rest, fragment) = halves(rest, '#');
        let (rest, query) = halves(rest, '?');
        let authority = rest.strip_prefix("//").map(|rest| &rest[..rest.find('/').unwrap_or(rest.len())]);
        let path = authority.map_or(rest, |authority| &rest["//".len() + authority.len()..]);
        Reference { scheme: scheme.map(|(scheme, _)| scheme), authority, path, query, fragment }
    }

    /// Whether it stands for itself.
    pub(super) fn is_absolute(&self) -> bool {
        self.scheme.is_some()
    }

    /// Its host; empty without one.
    pub(super) fn host(&self) -> &'a str {
        let authority = self.authority.unwrap_or_default();
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        match place.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => place,
        }
    }

    /// What the reference means where `self` is the base.
    pub(super) fn resolve(&self, reference: &Reference<'_>) -> String {
        if reference.scheme.is_some() {
            return Reference { path: &without_dots(reference.path), ..*reference }.text();
        }
        if reference.authority.is_some() {
            return Reference { scheme: self.scheme, path: &without_dots(reference.path), ..*reference }.text();
        }
        let path = match reference.path {
            "" => self.path.to_owned(),
            path if path.starts_with('/') => without_dots(path),
            path => without_dots(&format!("{}{path}", self.folder())),
        };
        let query = if reference.path.is_empty() { reference.query.or(self.query) } else { reference.query };
        Reference { path: &path, query, fragment: reference.fragment, ..*self }.text()
    }

    /// The path up to its last slash.
    fn folder(&self) -> &'a str {
        match self.path.rfind('/') {
            Some(at) => &self.path[..=at],
            None if self.authority.is_some() => "/",
            None => "",
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.scheme.iter().for_each(|scheme| text += &format!("{scheme}:"));
        self.authority.iter().for_each(|authority| text += &format!("//{authority}"));
        text += self.path;
        self.query.iter().for_each(|query| text += &format!("?{query}"));
        self.fragment.iter().for_each(|fragment| text += &format!("#{fragment}"));
        text
    }
}

fn halves(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// The path without segments `.` and `..` (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let ends_open = matches!(path.rsplit('/').next(), Some("." | ".."));
    for segment in path.split('/') {
        match segment {
            "." => {}
            ".." if kept.last().is_some_and(|last| !last.is_empty()) => drop(kept.pop()),
            ".." => {}
            segment => kept.push(segment),
        }
    }
    if ends_open {
        kept.push("");
    }
    let text = kept.join("/");
    if path.starts_with('/') && !text.starts_with('/') { format!("/{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_mean_what_the_rfc_says_they_mean() {
        let base = Reference::of("http://a/b/c/d;p?q");
        for (reference, meaning) in [
            ("g:h", "g:h"),
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q#s"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g;x=1/../y", "http://a/b/c/y"),
        ] {
            assert_eq!(base.resolve(&Reference::of(reference)), meaning, "{reference}");
        }
        assert_eq!(Reference::of("http://host").resolve(&Reference::of("extra/path")), "http://host/extra/path");
        assert_eq!(Reference::of("http://host/").resolve(&Reference::of("a?b=c")), "http://host/a?b=c");
    }

    #[test]
    fn a_host_is_found_between_user_and_port() {
        for (text, host) in [
            ("http://u:p@example.com:8080/x", "example.com"),
            ("http://[::1]:80", "[::1]"),
            ("http://", ""),
            ("mailto:a@b", ""),
            ("/path", ""),
        ] {
            assert_eq!(Reference::of(text).host(), host, "{text}");
        }
        assert!(Reference::of("urn:x").is_absolute() && !Reference::of("//a/b").is_absolute());
    }
}
