//! Where in a JSON tree something is.

use std::fmt::Write;

/// One step down a JSON tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// Into a field of an object, or an entry of a map.
    Field(&'a str),
    /// Into an item of a list.
    Item(usize),
}

/// A way down a JSON tree, written `spec.containers[0].image`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path<'a>(Vec<Step<'a>>);

impl<'a> Path<'a> {
    /// Goes down one step; [`Path::pop`] comes back.
    pub(crate) fn push(&mut self, step: Step<'a>) {
        self.0.push(step);
    }

    /// Goes up one step.
    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }

    /// The path with one more field.
    pub(crate) fn with(&self, field: &str) -> String {
        let mut text = self.to_string();
        if !text.is_empty() {
            text.push('.');
        }
        text + field
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if at == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(item) => {
                    f.write_char('[')?;
                    write!(f, "{item}]")?;
                }
            }
        }
        Ok(())
    }
}
