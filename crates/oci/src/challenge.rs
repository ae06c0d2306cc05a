//! What a registry's `WWW-Authenticate` asks for.

use std::collections::BTreeMap;

/// How to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// With a name and a password.
    Basic,
    /// With a token that `realm` gives out.
    Bearer {
        /// Where tokens are given out.
        realm: String,
        /// For which service.
        service: Option<String>,
    },
}

/// The challenge that we can meet, from the values of all such headers; tokens before passwords.
pub fn parse_challenges<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = false;
    for value in values {
        for (scheme, parameters) in split(value) {
            if scheme.eq_ignore_ascii_case("bearer") {
                let realm = parameters.get("realm").filter(|realm| !realm.is_empty());
                if let Some(realm) = realm {
                    let service = parameters.get("service").cloned();
                    return Some(Challenge::Bearer { realm: realm.clone(), service });
                }
            }
            basic |= scheme.eq_ignore_ascii_case("basic");
        }
    }
    basic.then_some(Challenge::Basic)
}

/// The challenges of one header value: a scheme each, with `name=value` or `name="value"` parameters.
fn split(value: &str) -> Vec<(&str, BTreeMap<String, String>)> {
    let mut challenges: Vec<(&str, BTreeMap<String, String>)> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return challenges;
        }
        match after.trim_start().strip_prefix('=') {
            None => {
                challenges.push((word, BTreeMap::new()));
                rest = after;
            }
            Some(after) => {
                let (value, after) = parameter(after.trim_start());
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.insert(word.to_ascii_lowercase(), value);
                }
                rest = after;
            }
        }
    }
}

/// A parameter's value and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_known_registries_are_understood() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
        };
        let parse = |value: &str| parse_challenges([value]);
        assert_eq!(
            parse(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull""#
            ),
            bearer("https://auth.docker.io/token", Some("registry.docker.io"))
        );
        assert_eq!(parse(r#"Basic realm="a, b", Bearer realm=x"#), bearer("x", None));
        assert_eq!(parse(r#"basic realm="Registry Realm""#), Some(Challenge::Basic));
        assert_eq!(parse(r#"Bearer realm="with \" quote""#), bearer("with \" quote", None));
        assert_eq!(parse_challenges(["Negotiate", "Basic"]), Some(Challenge::Basic));
        for nothing in ["", "Negotiate", "Bearer", "=", "\"", "Bearer realm=", ",,,", "Bearer service=\"x\""] {
            assert_eq!(parse(nothing), None, "{nothing}");
        }
    }
}
