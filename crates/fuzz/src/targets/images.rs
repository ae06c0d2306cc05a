//! What registries, images and credentials say.

use knoll_container::{parsers::resolve_user, protocol::User};
use knoll_oci::{ImageConfig, Keychain, Reference, parse_challenges, parse_manifest};

use super::parts;
use crate::Target;

pub(super) const IMAGE_DOCUMENTS: Target = Target {
    name: "image_documents",
    cases: 3000,
    words: &[
        "\"config\"",
        "\"rootfs\"",
        "\"diff_ids\"",
        "\"layers\"",
        "\"manifests\"",
        "\"platform\"",
        "\"digest\"",
        "sha256:",
        "null",
        "{",
        "[",
        "\"size\":",
    ],
    check: image_documents,
};
pub(super) const IMAGE_REFERENCE: Target = Target {
    name: "image_reference",
    cases: 5000,
    words: &[
        "docker.io",
        "localhost",
        ":5000",
        "@sha256:",
        "/",
        ":",
        "..",
        "__",
        "-",
        "[::1]",
        "index.docker.io",
        "library/",
    ],
    check: image_reference,
};
pub(super) const CHALLENGE: Target = Target {
    name: "challenge",
    cases: 5000,
    words: &["Bearer", "Basic", "realm=", "service=", "\"", "\\", ",", "=", " "],
    check: challenge,
};
pub(super) const KEYCHAIN: Target = Target {
    name: "keychain",
    cases: 3000,
    words: &[
        "\"auths\"",
        "\"auth\"",
        "\"username\"",
        "\"password\"",
        "\"identitytoken\"",
        "https://",
        "/v1/",
        "*.",
        "YTpi",
    ],
    check: keychain,
};
pub(super) const IMAGE_USER: Target = Target {
    name: "image_user",
    cases: 3000,
    words: &[":", "root", "0", "4294967295", "2147483648", "-1", "\n", ","],
    check: image_user,
};

fn image_documents(input: &[u8]) {
    if let Ok(manifest) = parse_manifest(input) {
        assert!(manifest.layers.len() + manifest.manifests.len() <= input.len());
    }
    if let Ok(config) = ImageConfig::parse(input) {
        for id in &config.diff_ids {
            assert_eq!(id.to_string().parse().ok().as_ref(), Some(id));
        }
    }
}

/// What is read is written so that it reads the same, and no part of it leaves its place in a path or a header.
fn image_reference(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(read) = text.parse::<Reference>() else { return };
    let written = read.to_string();
    assert_eq!(written.parse::<Reference>().ok().as_ref(), Some(&read), "{written}");
    assert!(read.name().split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{written}");
    assert!(written.bytes().all(|byte| byte.is_ascii_graphic()), "{written:?}");
}

fn challenge(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let found = parse_challenges(text.lines());
    if let Some(knoll_oci::Challenge::Bearer { realm, service }) = found {
        assert!(!realm.is_empty() && realm.len() + service.map_or(0, |service| service.len()) <= text.len());
    }
}

fn keychain(input: &[u8]) {
    let mut keychain = Keychain::default();
    let added = keychain.add_docker_config(input);
    if let Err(error) = &added {
        // Whoever reads the message must not read the secret.
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    assert!(!format!("{keychain:?}").contains("hunter2"));
    let mut legacy = Keychain::default();
    legacy.add_dockercfg(input).ok();
    keychain.add_machine(&legacy);
}

/// `user`, a passwd file and a group file.
fn image_user(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let mut parts = parts(text.as_bytes()).map(|part| str::from_utf8(part).unwrap_or_default());
    let mut next = || parts.next().unwrap_or_default();
    let user = User { name: next().to_owned(), ..User::default() };
    let Ok((uid, gid, groups, home)) = resolve_user(&user, next(), next()) else { return };
    assert!(i32::try_from(uid).is_ok() && i32::try_from(gid).is_ok(), "{uid}:{gid}");
    assert!(groups.contains(&gid) && groups.is_sorted());
    assert!(!home.is_empty() && !home.contains('\n'));
}
