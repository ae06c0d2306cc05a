//! `Retry-After`: how long an answer asks to be left alone (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
};

/// What an answer asks for, as seconds or as a date, from `now` on. Listened to with 429 and 503 only, as upstream.
/// A date that has passed asks for nothing; what is neither asks for nothing, too.
pub fn retry_after(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    headers.get(header::RETRY_AFTER).and_then(|value| read(value, now))
}

fn read(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than fit a number are as many as there are.
        return (!text.is_empty()).then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(status: u16, value: &'static str) -> Option<Duration> {
        let headers = [(header::RETRY_AFTER, HeaderValue::from_static(value))].into_iter().collect();
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:30 GMT").expect("a date");
        retry_after(StatusCode::from_u16(status).expect("a status"), &headers, now)
    }

    #[test]
    fn seconds_and_dates_are_read_and_all_else_asks_for_nothing() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let cases = [
            ("120", seconds(120)),
            (" 0 ", seconds(0)),
            ("99999999999999999999", seconds(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(7)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", seconds(7)),
            ("Sun Nov  6 08:49:37 1994", seconds(7)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", seconds(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ];
        for (value, wanted) in cases {
            assert_eq!(asked(503, value), wanted, "{value}");
        }
    }

    proptest! {
        #[test]
        fn whatever_it_says_is_a_wait_or_nothing(value in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = [(header::RETRY_AFTER, value)].into_iter().collect();
                let asked = retry_after(StatusCode::SERVICE_UNAVAILABLE, &headers, SystemTime::now());
                prop_assert!(asked.is_none_or(|wait| wait <= Duration::from_secs(u64::MAX)));
            }
        }
    }

    #[test]
    fn only_two_statuses_are_listened_to() {
        let listened: Vec<u16> = (200..600).filter(|status| asked(*status, "1").is_some()).collect();
        assert_eq!(listened, [429, 503]);
    }
}
