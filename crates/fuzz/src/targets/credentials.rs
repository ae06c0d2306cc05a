//! What says who somebody is.

use std::sync::LazyLock;

use jiff::Timestamp;
use knoll_apiserver::{
    auth::{Pki, TokenKey, user_of_certificate},
    authority::TokenOrder,
    parsers::{token as issue, token_holder},
};

use crate::Target;

pub(super) const TOKEN: Target = Target {
    name: "token",
    cases: 1500,
    words: &[".", "eyJhbGciOiJub25lIn0", "eyJhbGciOiJFUzI1NiJ9", "=", "-", "_", "e30"],
    check: token,
};
pub(super) const CERTIFICATE: Target = Target {
    name: "certificate",
    cases: 5000,
    words: &["\u{0}", "0\u{7f}", "\u{17}\u{d}260301123059Z", "\u{6}\u{3}U\u{4}\u{3}", "system:masters"],
    check: certificate,
};

/// A key that nobody else has, and a token that it signed.
static ISSUED: LazyLock<(TokenKey, String)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let pki = Pki::open(&directory.path().join("pki"), Timestamp::now()).expect("opens");
    let key = TokenKey::from_pem(&pki.token_key_pem().expect("has a key"), "issuer").expect("is a key");
    let order = TokenOrder {
        namespace: "default".into(),
        name: "somebody".into(),
        uid: "1".into(),
        audiences: Vec::new(),
        expiration_seconds: 3600,
        bound_to: None,
        node: None,
    };
    let token = issue(&key, &order, Timestamp::UNIX_EPOCH).expect("is signed");
    (key, token)
});

/// Nobody comes in with a token that the key did not sign: neither with a stranger's, nor with parts of a good one.
fn token(input: &[u8]) {
    let (key, good) = &*ISSUED;
    let Ok(text) = str::from_utf8(input) else { return };
    assert_eq!(token_holder(key, text, Timestamp::UNIX_EPOCH), None, "{text}");
    let holder = Some("system:serviceaccount:default:somebody".to_owned());
    assert_eq!(token_holder(key, good, Timestamp::UNIX_EPOCH), holder);
    let pieces: Vec<&str> = good.split('.').collect();
    for at in 0..3 {
        let mut mixed = pieces.clone();
        mixed[at] = text;
        let mixed = mixed.join(".");
        assert!(mixed == *good || token_holder(key, &mixed, Timestamp::UNIX_EPOCH).is_none(), "{mixed}");
    }
}

fn certificate(input: &[u8]) {
    let Some(identity) = user_of_certificate(input) else { return };
    assert!(!identity.user.is_empty() && identity.groups.len() <= 65);
    assert!(identity.groups.iter().map(String::len).sum::<usize>() <= input.len() + 32);
}
