//! What reading makes of an event that was written, told without doing either: for who writes an event and goes on with it
//! as if it had been read.

use super::{Mode, binary};
use crate::{Data, Event, SpecVersion, Value, data::Form, media_type};

/// The event as [`read`](super::read) reads it after [`write_to`](super::write_to) wrote it in this mode.
///
/// # Errors
/// With the event as it is where only reading it tells.
#[expect(clippy::result_large_err, reason = "it is the event that was handed over")]
pub fn as_read(event: Event, written: Mode) -> Result<Event, Event> {
    match written {
        Mode::Binary => Ok(from_headers(event)),
        Mode::Structured if is_as_it_is_in_json(&event) => Ok(from_json(event)),
        Mode::Structured | Mode::Batched => Err(event),
    }
}

/// Headers are texts, and a body says of itself no more than its content type.
fn from_headers(event: Event) -> Event {
    let is_unencoded = binary::goes_unencoded(&event);
    let is_implied = event.data_content_type().is_none() && event.data().is_some_and(|data| data.form() == Form::Json);
    let data = event.data().filter(|data| !data.bytes().is_empty());
    let data = data.map(|data| Data::new(data.bytes().clone(), Form::Plain));
    let mut event = event.with_data(data).with_unencoded(is_unencoded);
    event.change_extensions(text);
    if is_implied {
        event.set("datacontenttype", binary::IMPLIED).expect("it is a media type");
    }
    event
}

/// JSON has booleans and numbers besides.
fn from_json(event: Event) -> Event {
    let mut event = event.with_unencoded(false);
    event.change_extensions(|value| match value {
        Value::Boolean(_) | Value::Integer(_) => value,
        value => text(value),
    });
    event
}

fn text(value: Value) -> Value {
    match value {
        Value::String(_) => value,
        value => Value::from(&*value.text()),
    }
}

/// Whether JSON gives the data back byte for byte and in its form: it is a value of JSON already, a text that is none, or
/// bytes that came as such.
fn is_as_it_is_in_json(event: &Event) -> bool {
    let Some(data) = event.data() else { return true };
    let is_json = event.data_content_type().is_none_or(media_type::is_json);
    match data.form() {
        Form::Json => is_json && !event.is_encoded(),
        Form::Plain => !is_json && !event.is_encoded() && str::from_utf8(data.bytes()).is_ok(),
        Form::Binary => event.version() == SpecVersion::V1,
    }
}
