//! The forms of names, labels and values that Kubernetes sets. Each check returns what is wrong, in the words clients
//! know; nothing wrong is an empty list.

/// Longest DNS label.
const LONGEST_LABEL: usize = 63;
/// Longest DNS name.
const LONGEST_SUBDOMAIN: usize = 253;

fn too_long(text: &str, longest: usize) -> Option<String> {
    (text.len() > longest).then(|| format!("must be no more than {longest} characters"))
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_dns1123_label_form(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|&b| is_lower_alphanumeric(b))
        && bytes.last().is_some_and(|&b| is_lower_alphanumeric(b));
    ends && bytes.iter().all(|&b| is_lower_alphanumeric(b) || b == b'-')
}

fn is_dns1123_subdomain_form(text: &str) -> bool {
    text.split('.').all(is_dns1123_label_form)
}

/// A label that may begin with a digit.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut problems: Vec<String> = too_long(text, LONGEST_LABEL).into_iter().collect();
    if !is_dns1123_label_form(text) {
        problems.push(if is_dns1123_subdomain_form(text) {
            "must not contain dots".to_owned()
        } else {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .to_owned()
        });
    }
    problems
}

/// Labels that may begin with digits, between dots.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut problems: Vec<String> = too_long(text, LONGEST_SUBDOMAIN).into_iter().collect();
    if !is_dns1123_subdomain_form(text) {
        problems.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    problems
}

/// A label that begins with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut problems: Vec<String> = too_long(text, LONGEST_LABEL).into_iter().collect();
    if !(is_dns1123_label_form(text) && text.starts_with(|c: char| c.is_ascii_lowercase())) {
        problems.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
             validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    problems
}

/// A prefix of a DNS-1035 label, as `generateName` holds one: a trailing hyphen is fine.
pub fn dns1035_label_prefix(text: &str) -> Vec<String> {
    // What comes in place of the hyphen is a letter; the character before it is given the benefit of the doubt.
    match text.strip_suffix('-').and_then(|rest| rest.char_indices().next_back().map(|(at, _)| &rest[..at])) {
        Some(head) => dns1035_label(&format!("{head}a")),
        None => dns1035_label(text),
    }
}

fn is_qualified_form(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A name with an optional DNS prefix: the form of label and annotation keys.
pub fn qualified_name(text: &str) -> Vec<String> {
    const FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                        validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let mut problems = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(dns1123_subdomain(prefix).into_iter().map(|problem| format!("prefix part {problem}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {FORM} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > LONGEST_LABEL {
        problems.push(format!("name part must be no more than {LONGEST_LABEL} bytes"));
    }
    if !is_qualified_form(name) {
        problems.push(format!("name part {FORM}"));
    }
    problems
}

/// An identifier: letters, digits and underscores, not beginning with a digit.
pub fn identifier(text: &str) -> Vec<String> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Vec::new();
    }
    vec![
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
         characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
         '[A-Za-z_][A-Za-z0-9_]*')"
            .to_owned(),
    ]
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut problems: Vec<String> = (text.len() > LONGEST_LABEL)
        .then(|| format!("must be no more than {LONGEST_LABEL} bytes"))
        .into_iter()
        .collect();
    if !(text.is_empty() || is_qualified_form(text)) {
        problems.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
             for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    problems
}

/// The name of a port: at most 15 lower-case letters, digits and single hyphens, with a letter.
pub fn port_name(text: &str) -> Vec<String> {
    let mut problems: Vec<String> = too_long(text, 15).into_iter().collect();
    if text.is_empty() || !text.bytes().all(|b| is_lower_alphanumeric(b) || b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// A domain of at least two labels; one trailing dot is fine. Returns what is wrong as the field rule words it.
pub fn fully_qualified_domain(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["Required value".to_owned()];
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let problems = dns1123_subdomain(name);
    if !problems.is_empty() {
        return vec![format!("Invalid value: {name:?}: {}", problems.join(","))];
    }
    if !name.contains('.') {
        let problem = "should be a domain with at least two segments separated by dots";
        return vec![format!("Invalid value: {name:?}: {problem}")];
    }
    for label in name.split('.') {
        let problems = dns1123_label(label);
        if !problems.is_empty() {
            return vec![format!("Invalid value: {label:?}: {}", problems.join(","))];
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_lower_case_and_short() {
        assert!(dns1123_label("0a-b").is_empty());
        assert!(dns1035_label("a-b0").is_empty());
        assert_eq!(dns1035_label("0a").len(), 1);
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert!(dns1123_label("a-")[0].contains("(e.g. 'my-name',  or '123-abc', regex"));
        assert!(dns1035_label_prefix("abc-").is_empty());
        assert_eq!(dns1035_label_prefix("-").len(), 1);
    }

    #[test]
    fn keys_may_have_a_prefix() {
        assert!(qualified_name("example.com/My_Key").is_empty());
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert_eq!(qualified_name("/b"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("").len(), 2);
    }

    #[test]
    fn domains_have_two_labels() {
        assert!(fully_qualified_domain("example.com").is_empty());
        assert!(fully_qualified_domain("example.com.").is_empty());
        assert_eq!(
            fully_qualified_domain("example"),
            [r#"Invalid value: "example": should be a domain with at least two segments separated by dots"#]
        );
    }
}
