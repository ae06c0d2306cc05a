//! The extensions that Knative adds on the way: hops left, time of arrival, and why an event is a dead letter.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;

use crate::{Event, Invalid, Uri, Value};

/// Hops that an event may still take through brokers. Subscribers do not see it; a reply inherits it.
pub const TTL: &str = "knativebrokerttl";
/// When the broker took the event.
pub const ARRIVAL_TIME: &str = "knativearrivaltime";
/// Where an event could not be delivered to.
pub const ERROR_DESTINATION: &str = "knativeerrordest";
/// The status that the destination answered with.
pub const ERROR_CODE: &str = "knativeerrorcode";
/// What it said, in base64.
pub const ERROR_DATA: &str = "knativeerrordata";
/// All of these, for which an event always has room.
pub(crate) const OWN: [&str; 5] = [TTL, ARRIVAL_TIME, ERROR_DESTINATION, ERROR_CODE, ERROR_DATA];
/// Bytes of an answer that [`ERROR_DATA`] holds at most: 1024 characters of base64, and all of it decodes.
pub const LONGEST_ERROR_DATA: usize = 768;

/// An event that came back to brokers too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no hops are left in {TTL}: the event came back to brokers too often, look for a subscriber whose reply matches its own trigger"
)]
pub struct OutOfHops;

/// Why an event becomes a dead letter.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryFailure<'a> {
    /// The subscriber, or the place for replies.
    pub destination: &'a str,
    /// The last status.
    pub code: i32,
    /// The last answer's body, or the text of the error.
    pub data: &'a [u8],
}

/// Hops left, when the event says so with a number.
pub fn hops(event: &Event) -> Option<i32> {
    match event.extension(TTL)? {
        Value::Integer(hops) => Some(*hops),
        value => value.text().parse().ok(),
    }
}

/// Takes one hop. An event has at most `most` left, whatever it says, and all of them when it does not say how many.
///
/// # Errors
/// When none is left; the event is then as it was.
pub fn take_hop(event: &mut Event, most: i32) -> Result<(), OutOfHops> {
    let left = hops(event).map_or(most, |hops| hops.saturating_sub(1).min(most));
    if left <= 0 {
        return Err(OutOfHops);
    }
    event.set(TTL, left).expect("a number is a value, and Knative's own extensions have room");
    Ok(())
}

/// A time of arrival, for many events.
pub fn arrival_time(now: Timestamp) -> Value {
    Value::from(&*Value::Timestamp(now).text())
}

/// Says when the broker took the event, whatever it said before.
///
/// # Errors
/// When it is a time that RFC 3339 cannot write.
pub fn set_arrival_time(event: &mut Event, time: impl Into<Value>) -> Result<(), Invalid> {
    event.set(ARRIVAL_TIME, time)
}

/// Says why the event is a dead letter, where it does not say so already: the first failure is the one that counts.
///
/// # Errors
/// When the destination breaks a rule for values; the event is then as it was.
pub fn set_failure(event: &mut Event, failure: &DeliveryFailure<'_>) -> Result<(), Invalid> {
    let destination = Uri::parse(failure.destination).map_or_else(|_| failure.destination.into(), Value::Uri);
    let data = &failure.data[..failure.data.len().min(LONGEST_ERROR_DATA)];
    let data = (!data.is_empty()).then(|| STANDARD.encode(data).into());
    let given = [(ERROR_DESTINATION, Some(destination)), (ERROR_CODE, Some(failure.code.into())), (ERROR_DATA, data)];
    // Of the values the first alone can be refused, so that nothing is set beside it then.
    for (name, value) in given {
        if let Some(value) = value
            && event.extension(name).is_none()
        {
            event.set(name, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        json, limits,
        mode::{self, Format},
    };

    fn event(hops: impl Into<Value>) -> Event {
        let mut event = Event::new("1", "/s", "t").expect("an event");
        event.set(TTL, hops).expect("an extension");
        event
    }

    #[test]
    fn each_broker_takes_a_hop_and_the_last_one_is_refused() {
        let mut fresh = Event::new("1", "/s", "t").expect("an event");
        assert_eq!((take_hop(&mut fresh, 3), hops(&fresh)), (Ok(()), Some(3)));
        assert_eq!((take_hop(&mut fresh, 3), hops(&fresh)), (Ok(()), Some(2)));
        assert_eq!((take_hop(&mut fresh, 3), hops(&fresh)), (Ok(()), Some(1)));
        assert_eq!((take_hop(&mut fresh, 3), hops(&fresh)), (Err(OutOfHops), Some(1)));
    }

    #[test]
    fn hops_are_read_from_text_and_what_is_no_number_counts_as_none_said() {
        for (value, left) in [(Value::from("7"), 6), ("junk".into(), 255), (true.into(), 255), ("".into(), 255)] {
            let mut event = event(value);
            assert_eq!((take_hop(&mut event, 255), hops(&event)), (Ok(()), Some(left)));
        }
        for value in [Value::from(0), "-5".into(), i32::MIN.into()] {
            assert_eq!(take_hop(&mut event(value), 255), Err(OutOfHops));
        }
    }

    #[test]
    fn nobody_has_more_hops_than_the_broker_gives() {
        for value in [Value::from(i32::MAX), "2147483647".into(), 4.into()] {
            let mut event = event(value);
            assert_eq!((take_hop(&mut event, 3), hops(&event)), (Ok(()), Some(3)));
        }
    }

    #[test]
    fn an_event_full_of_extensions_has_room_for_knatives_own_and_is_read_again_with_them() {
        let mut event = Event::new("1", "/s", "t").expect("an event");
        for at in 0..limits::MOST_EXTENSIONS {
            event.set(&format!("ext{at}"), 1).expect("room");
        }
        assert_eq!((take_hop(&mut event, 3), hops(&event)), (Ok(()), Some(3)));
        set_arrival_time(&mut event, Timestamp::UNIX_EPOCH).expect("room");
        let failure = DeliveryFailure { destination: "http://a/b", code: 503, data: b"x" };
        set_failure(&mut event, &failure).expect("room");
        assert!(OWN.iter().all(|name| event.extension(name).is_some()));
        let attributes = |event: &Event| format!("{event:?}");
        let read = json::read(&json::write(&event)).expect("an event");
        assert_eq!(attributes(&read), attributes(&event));
        for format in [Format::Binary, Format::Json] {
            let mut headers = http::HeaderMap::new();
            let body = mode::write(&event, format, &mut headers);
            let read = mode::read(&headers, body).expect("an event");
            assert_eq!(read.extension_names().count(), limits::MOST_EXTENSIONS + OWN.len());
        }
        assert!(event.set("onemore", 1).is_err());
    }

    #[test]
    fn a_failure_that_cannot_be_said_whole_is_not_said_in_part() {
        let mut event = Event::new("1", "/s", "t").expect("an event");
        let before = event.clone();
        let failure = DeliveryFailure { destination: "a\nb", code: 503, data: b"x" };
        assert!(set_failure(&mut event, &failure).is_err());
        assert_eq!(event, before);
    }

    #[test]
    fn the_time_of_arrival_is_always_ours() {
        let mut event = Event::new("1", "/s", "t").expect("an event");
        event.set(ARRIVAL_TIME, "1999").expect("an extension");
        set_arrival_time(&mut event, arrival_time("2023-06-30T07:45:22.5Z".parse().unwrap())).expect("room");
        assert_eq!(event.extension(ARRIVAL_TIME).expect("set").text(), "2023-06-30T07:45:22.5Z");
    }

    #[test]
    fn the_first_failure_is_kept_and_a_long_answer_is_cut_so_that_it_decodes() {
        let mut event = Event::new("1", "/s", "t").expect("an event");
        let answer = vec![b'x'; 5000];
        set_failure(&mut event, &DeliveryFailure { destination: "http://a/b", code: 503, data: &answer })
            .expect("room");
        let again = DeliveryFailure { destination: "http://c", code: 500, data: b"other" };
        set_failure(&mut event, &again).expect("room");
        let text = |name| event.extension(name).expect("set").text();
        assert_eq!((text(ERROR_DESTINATION), text(ERROR_CODE)), ("http://a/b".into(), "503".into()));
        assert_eq!(text(ERROR_DATA).len(), 1024);
        assert_eq!(STANDARD.decode(&*text(ERROR_DATA)).expect("base64"), &answer[..768]);
        let mut event = Event::new("1", "/s", "t").expect("an event");
        set_failure(&mut event, &DeliveryFailure { data: b"", ..again }).expect("room");
        assert_eq!(event.extension(ERROR_DATA), None);
    }
}
