//! What an event of a stranger may hold at most. Beyond it the event is refused with the bound in the answer. The size of
//! the whole is for the one who reads the body to bound; data is never copied, parsed into a tree or descended into, so
//! its depth needs no bound.

/// Extensions of one event, those of Knative's own ([`crate::knative`]) not counted: they always have room.
pub const MOST_EXTENSIONS: usize = 256;
/// Bytes of an attribute's name. The specification advises 20 at most, and sets no bound.
pub const LONGEST_NAME: usize = 128;
/// Bytes of an attribute's value. An event of 64 KiB must be forwarded whatever it is made of (specification, "Size
/// Limits"), and this is all of it in one attribute.
pub const LONGEST_VALUE: usize = 64 << 10;
/// Headers of an event in binary mode, its content type among them. Servers take about a hundred, and whoever sends it
/// adds some; an event of more leaves in structured mode.
pub const MOST_HEADERS: usize = 80;
/// Bytes of an event's headers in binary mode, names and separators among them. Servers take 64 KiB and less; an event of
/// more leaves in structured mode.
pub const LONGEST_HEADERS: usize = 48 << 10;
/// Events of one batch. An event takes fifty bytes on the wire and several hundred in memory.
pub const MOST_BATCHED: usize = 10_000;
/// Attributes of all events of one batch. One takes half a dozen bytes on the wire and fifteen times that in memory.
pub const MOST_BATCHED_ATTRIBUTES: usize = 100_000;
/// Filters within filters (`all`, `any`, `not`).
pub const DEEPEST_FILTER: usize = 64;
/// Comparisons, expressions and lists in one filter, all that is within it counted.
pub const MOST_FILTERS: usize = 1024;
/// What a filter may do for one event, and the evaluation of an expression by itself: bytes of text that comparisons and
/// functions read and write, with eight more for each step. Three attributes of [`LONGEST_VALUE`] hold less, and it is some
/// milliseconds of a processor at most.
pub const MOST_WORK: usize = 256 << 10;
