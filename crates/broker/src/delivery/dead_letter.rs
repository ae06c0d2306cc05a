//! What an event carries that could not be delivered.

use knoll_event::{Event, knative};

use super::retry::Failure;

/// Says in `knativeerrordest`, `knativeerrorcode` and `knativeerrordata` why the event is a dead letter. What it says of an
/// earlier failure stays. Whether there was room: an event with as many extensions as it may have keeps those.
pub fn explain(event: &mut Event, failure: &Failure) -> bool {
    let (destination, code) = (&*failure.destination, failure.cause.code());
    knative::set_failure(event, &knative::DeliveryFailure { destination, code, data: &failure.data }).is_ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::retry::Cause;
    use super::*;

    fn explained(cause: Cause, data: &'static str) -> [Option<String>; 3] {
        let mut event = Event::new("1", "/s", "t").expect("an event");
        let data = Bytes::from_static(data.as_bytes());
        assert!(explain(&mut event, &Failure { destination: "http://s/a".into(), cause, data, retry_after: None }));
        ["knativeerrordest", "knativeerrorcode", "knativeerrordata"]
            .map(|name| event.extension(name).map(|value| value.text().into_owned()))
    }

    #[test]
    fn a_dead_letter_says_where_to_why_and_what_was_answered() {
        let said = |code: &str, data: Option<&str>| {
            [Some("http://s/a".to_owned()), Some(code.to_owned()), data.map(str::to_owned)]
        };
        assert_eq!(explained(Cause::Status(http::StatusCode::IM_A_TEAPOT), "no"), said("418", Some("bm8=")));
        assert_eq!(explained(Cause::Timeout, ""), said("500", None));
        assert_eq!(explained(Cause::Unsendable, ""), said("-1", None));
    }
}
