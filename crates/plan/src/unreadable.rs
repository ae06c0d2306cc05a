//! Objects that are there and cannot be read. They are neither known nor gone: whoever takes away what it does not find asks
//! here first.

use std::collections::BTreeMap;

use knoll_api::{Key, Kind};

use crate::World;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unreadable {
    /// Whether the listing that is under way, if one is, has named it.
    objects: BTreeMap<(Kind, Key), bool>,
}

impl Unreadable {
    /// A listing of `kind` begins.
    pub(crate) fn begin_listing(&mut self, kind: Kind) {
        self.objects.iter_mut().filter(|((of, _), _)| *of == kind).for_each(|(_, is_named)| *is_named = false);
    }

    /// The listing of `kind` is complete: what it has not named, and is gone.
    pub(crate) fn end_listing(&self, kind: Kind) -> impl Iterator<Item = Key> + '_ {
        let unnamed = self.objects.iter().filter(move |((of, _), is_named)| *of == kind && !**is_named);
        unnamed.map(|((_, key), _)| key.clone())
    }

    /// The object was read, or is gone.
    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) {
        self.objects.remove(&(kind, key.clone()));
    }

    /// Whether every object can be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

impl World {
    /// An object is there, and what it says cannot be read. Until it can be, or is gone, it counts as it was known before.
    pub fn note_unreadable(&mut self, kind: Kind, key: Key) {
        self.name_listed(kind, &key);
        self.unreadable.objects.insert((kind, key), true);
    }

    /// Whether there is such an object that cannot be read.
    pub fn is_unreadable(&self, kind: Kind, key: &Key) -> bool {
        !self.unreadable.is_empty() && self.unreadable.objects.contains_key(&(kind, key.clone()))
    }

    /// Whether there is an object of `kind` that cannot be read.
    pub fn has_unreadable(&self, kind: Kind) -> bool {
        self.unreadable.objects.keys().any(|(of, _)| *of == kind)
    }

    /// Whether there is an object of `kind` of this name in some namespace that cannot be read.
    pub(crate) fn has_unreadable_named(&self, kind: Kind, name: &str) -> bool {
        self.unreadable.objects.keys().any(|(of, key)| *of == kind && key.name == name)
    }
}

#[cfg(test)]
mod tests {
    use knoll_api::Object;
    use serde_json::json;

    use super::*;
    use crate::{Change, Settings};

    fn trigger(name: &str) -> Object {
        let value = json!({"metadata": {"namespace": "a", "name": name}, "spec": {"broker": "b", "subscriber": {}}});
        Object::from_json(Kind::Trigger, value).expect("a Trigger")
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_was_until_it_can_be_or_is_gone() {
        let mut world = World::new(Settings::default());
        let (known, new) = (Key::new("a", "known"), Key::new("a", "new"));
        world.apply(Change::Put(trigger("known")));
        world.begin_listing(Kind::Trigger);
        world.note_unreadable(Kind::Trigger, known.clone());
        world.note_unreadable(Kind::Trigger, new.clone());
        assert_eq!(world.end_listing(Kind::Trigger), []);
        assert!(world.contains(Kind::Trigger, &known) && world.is_unreadable(Kind::Trigger, &new));
        assert!(world.has_unreadable_named(Kind::Trigger, "new") && !world.has_unreadable(Kind::Broker));

        world.apply(Change::Put(trigger("known")));
        assert!(!world.is_unreadable(Kind::Trigger, &known));
        world.begin_listing(Kind::Trigger);
        world.note_listed(&trigger("known"));
        assert_eq!(world.end_listing(Kind::Trigger), std::slice::from_ref(&new));
        world.apply(Change::Gone(Kind::Trigger, new));
        assert!(!world.has_unreadable(Kind::Trigger));
    }
}
