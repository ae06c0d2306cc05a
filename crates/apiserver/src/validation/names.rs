//! The forms of names.

/// A DNS label: lower-case letters, digits and dashes.
pub(crate) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
/// A DNS label that starts with a letter.
pub(crate) const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
/// DNS labels joined by dots.
pub(crate) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// The last part of a label key.
pub(crate) const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
/// A label's value.
pub(crate) const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn outer(c: Option<char>, also: fn(char) -> bool) -> bool {
    c.is_some_and(also)
}

fn shaped(text: &str, inner: fn(char) -> bool, ends: fn(char) -> bool) -> bool {
    text.chars().all(inner) && outer(text.chars().next(), ends) && outer(text.chars().last(), ends)
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn lower_or_dash(c: char) -> bool {
    lower(c) || c == '-'
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

/// Whether it is a DNS label; what it must be when not.
pub(crate) fn label(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("must be no more than 63 characters".into());
    }
    if shaped(text, lower_or_dash, lower) { Ok(()) } else { Err(LABEL.into()) }
}

/// As [`label`], starting with a letter.
pub(crate) fn label_1035(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("must be no more than 63 characters".into());
    }
    let letter = text.starts_with(|c: char| c.is_ascii_lowercase());
    if letter && shaped(text, lower_or_dash, lower) { Ok(()) } else { Err(LABEL_1035.into()) }
}

/// Whether it is DNS labels joined by dots.
pub(crate) fn subdomain(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err("must be no more than 253 characters".into());
    }
    let fine = text.split('.').all(|part| shaped(part, lower_or_dash, lower));
    if fine { Ok(()) } else { Err(SUBDOMAIN.into()) }
}

/// Whether it can be one segment of a path.
pub(crate) fn path_segment(text: &str) -> Result<(), String> {
    match text {
        "." | ".." => Err(format!("may not be '{text}'")),
        _ if text.contains('/') => Err("may not contain '/'".into()),
        _ if text.contains('%') => Err("may not contain '%'".into()),
        _ => Ok(()),
    }
}

/// Whether it is a label's or annotation's key.
pub(crate) fn key(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            subdomain(prefix).map_err(|why| format!("prefix part {why}"))?;
            name
        }
        None => text,
    };
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    if name.len() > 63 {
        return Err("name part must be no more than 63 characters".into());
    }
    if shaped(name, word, alphanumeric) { Ok(()) } else { Err(NAME_PART.into()) }
}

/// Whether it is a label's value.
pub(crate) fn label_value(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("must be no more than 63 bytes".into());
    }
    if text.is_empty() || shaped(text, word, alphanumeric) { Ok(()) } else { Err(LABEL_VALUE.into()) }
}

/// Whether it is the name of a port: a service's name as IANA has them.
pub(crate) fn port_name(text: &str) -> Result<(), String> {
    let why = if text.len() > 15 {
        "must be no more than 15 characters"
    } else if text.is_empty() || !text.chars().all(lower_or_dash) {
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    } else if !text.contains(|c: char| c.is_ascii_lowercase()) {
        "must contain at least one letter (a-z)"
    } else if text.contains("--") {
        "must not contain consecutive hyphens"
    } else if text.starts_with('-') || text.ends_with('-') {
        "must not begin or end with a hyphen"
    } else {
        return Ok(());
    };
    Err(why.into())
}

/// Whether it can be a key of a ConfigMap or Secret, and so the name of a file.
pub(crate) fn config_key(text: &str) -> Result<(), String> {
    let why = if text.len() > 253 {
        "must be no more than 253 characters"
    } else if text.is_empty() || !text.chars().all(word) {
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
    } else if text == "." {
        "must not be '.'"
    } else if text == ".." {
        "must not be '..'"
    } else if text.starts_with("..") {
        "must not start with '..'"
    } else {
        return Ok(());
    };
    Err(why.into())
}
