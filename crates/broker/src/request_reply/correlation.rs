//! Correlation ids: by which an event says which request it answers.
//!
//! Of upstream's form, `<id of the request's event>:<sealed>:<which instance waits>`. The sealed part is the id once more,
//! under a key of this process and bound to the RequestReply, so that nobody can answer a request whose event they did not
//! see. Requests end with the process that holds them, so its key need not outlive it either.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    rand::{SecureRandom, SystemRandom},
};

/// The one instance there is.
const INSTANCE: &str = "0";

/// Makes and checks correlation ids.
pub(crate) struct Seal {
    key: LessSafeKey,
    /// Of the next nonce: a key never sees one twice.
    next: AtomicU64,
}

impl Seal {
    /// With a key of its own.
    pub(crate) fn new() -> Self {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).expect("the system gives random bytes");
        let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has its length");
        Self { key: LessSafeKey::new(key), next: AtomicU64::new(0) }
    }

    /// The correlation id of an event that was posted to the RequestReply of this uid.
    pub(crate) fn id(&self, uid: &str, event: &str) -> Result<String, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.next.fetch_add(1, Relaxed).to_be_bytes());
        let mut sealed = event.as_bytes().to_vec();
        let of = Aad::from(uid.as_bytes());
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), of, &mut sealed)?;
        Ok(format!("{event}:{}:{INSTANCE}", URL_SAFE.encode([&nonce[..], &sealed].concat())))
    }

    /// Whether this is a correlation id that [`id`](Self::id) made for the RequestReply of this uid.
    pub(crate) fn is_ours(&self, uid: &str, id: &str) -> bool {
        self.opened(uid, id).is_some()
    }

    fn opened(&self, uid: &str, id: &str) -> Option<()> {
        // The event's id may hold colons.
        let (rest, instance) = id.rsplit_once(':')?;
        let (event, sealed) = rest.rsplit_once(':')?;
        let mut sealed = URL_SAFE.decode(sealed).ok()?;
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = self.key.open_in_place(nonce, Aad::from(uid.as_bytes()), sealed).ok()?;
        (instance == INSTANCE && opened == event.as_bytes()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_known_again_by_who_made_it_and_by_nobody_else(event in "\\PC{1,40}", at: prop::sample::Index) {
            let (one, other) = (Seal::new(), Seal::new());
            let id = one.id("uid", &event).expect("room");
            let beginning = event.clone() + ":";
            prop_assert!(id.starts_with(&beginning) && id.ends_with(":0"));
            prop_assert!(one.is_ours("uid", &id));
            prop_assert!(!one.is_ours("another", &id) && !other.is_ours("uid", &id));
            prop_assert_ne!(one.id("uid", &event).expect("room"), id.clone());
            // Nothing of it can be changed.
            let mut letters: Vec<char> = id.chars().collect();
            let at = at.index(letters.len());
            letters[at] = if letters[at] == 'A' { 'B' } else { 'A' };
            prop_assert!(!one.is_ours("uid", &letters.into_iter().collect::<String>()));
        }

        #[test]
        fn whatever_somebody_writes_is_no_id(text in "[a-zA-Z0-9_=:-]{0,60}") {
            prop_assert!(!Seal::new().is_ours("uid", &text));
        }
    }
}
