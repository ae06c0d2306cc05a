//! A list of words in one piece of memory.
//!
//! Roles list what they name as often as their writers like, and are all held in memory: a list of strings would take ten
//! times the bytes that were sent.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What ends each word. A word that holds it is left out: no name of anything does.
const END: char = '\0';

/// A list of words.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Words(Box<str>);

impl Words {
    /// The words, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.split_terminator(END)
    }

    /// How many there are. Counts them.
    pub(crate) fn count(&self) -> usize {
        self.0.bytes().filter(|byte| *byte == END as u8).count()
    }

    /// How many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a word is among them.
    pub(crate) fn has(&self, wanted: &str) -> bool {
        self.iter().any(|word| word == wanted)
    }
}

impl<T: AsRef<str>> FromIterator<T> for Words {
    fn from_iter<I: IntoIterator<Item = T>>(words: I) -> Self {
        let mut text = String::new();
        for word in words {
            let word = word.as_ref();
            if !word.contains(END) {
                text.push_str(word);
                text.push(END);
            }
        }
        Self(text.into())
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Words;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of strings")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut text = String::new();
                while let Some(word) = list.next_element::<std::borrow::Cow<'de, str>>()? {
                    if !word.contains(END) {
                        text.push_str(&word);
                        text.push(END);
                    }
                }
                Ok(Words(text.into()))
            }
        }

        deserializer.deserialize_seq(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_and_the_empty_one_is_one() {
        let words: Words = serde_json::from_str(r#"["", "a", "b c", "x\u0000y"]"#).unwrap();
        assert_eq!(words.iter().collect::<Vec<_>>(), ["", "a", "b c"]);
        assert_eq!((words.count(), words.has(""), words.has("x"), words.has("a")), (3, true, false, true));
        assert_eq!(serde_json::to_string(&words).unwrap(), r#"["","a","b c"]"#);
        assert_eq!(words, words.iter().collect());
        assert!(Words::default().is_empty() && !["".to_owned()].iter().collect::<Words>().is_empty());
    }

    #[test]
    fn a_list_takes_little_more_than_its_text() {
        let list: Vec<String> = (0..100_000).map(|n| format!("{n}")).collect();
        let words: Words = list.iter().collect();
        assert!(words.bytes() <= serde_json::to_string(&list).unwrap().len());
    }
}
