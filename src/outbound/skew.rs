//! The clocks of other services, by the `Date` of their responses.

use actix_web::http::header::{self, HeaderMap};
use jiff::{SignedDuration, Timestamp};

/// Returns how far the service's clock is ahead of ours, at least. `sent` and `received` are our times around the call.
///
/// The header has whole seconds, and the service wrote it at any time during the call. So this returns the smallest
/// difference that explains the header, and zero if the clocks may agree. The time that a response has spent in a cache
/// (`Age`, RFC 9111) does not count. `None` without a valid header.
pub(crate) fn clock_skew(
    headers: &HeaderMap,
    sent: Timestamp,
    received: Timestamp,
) -> Option<SignedDuration> {
    const SECOND: SignedDuration = SignedDuration::from_secs(1);

    let text = |name| headers.get(name)?.to_str().ok();
    let date = httpdate::parse_http_date(text(header::DATE)?).ok()?;
    let date = Timestamp::try_from(date).ok()?;
    let age = text(header::AGE).and_then(|age| age.trim().parse().ok());
    let age = SignedDuration::from_secs(age.unwrap_or(0));
    // `Age` has whole seconds, too.
    let rounding = if age.is_zero() {
        SignedDuration::ZERO
    } else {
        SECOND
    };
    let earliest = date.checked_add(age.checked_sub(rounding)?).ok()?;
    let latest = date.checked_add(age.checked_add(rounding + SECOND)?).ok()?;
    Some(if earliest > received {
        earliest.duration_since(received)
    } else if latest < sent {
        latest.duration_since(sent)
    } else {
        SignedDuration::ZERO
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn skew(date: &str, age: Option<&'static str>) -> Option<i64> {
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, HeaderValue::from_str(date).unwrap());
        if let Some(age) = age {
            headers.insert(header::AGE, HeaderValue::from_static(age));
        }
        let sent: Timestamp = "2026-01-01T12:00:00.900Z".parse().unwrap();
        let received = sent + SignedDuration::from_millis(200);
        let skew = clock_skew(&headers, sent, received)?;
        Some(skew.as_secs())
    }

    #[test]
    fn only_a_difference_that_the_call_does_not_explain_counts() {
        let at = |time: &str| format!("Thu, 01 Jan 2026 {time} GMT");
        assert_eq!(skew(&at("12:00:00"), None), Some(0));
        assert_eq!(skew(&at("12:00:01"), None), Some(0));
        assert_eq!(skew(&at("12:10:02"), None), Some(600));
        assert_eq!(skew(&at("11:49:59"), None), Some(-600));
        assert_eq!(skew(&at("11:00:00"), Some("3600")), Some(0));
        assert_eq!(skew(&at("11:00:00"), Some("3000")), Some(-598));
        assert_eq!(skew("yesterday", None), None);
        assert_eq!(skew(&at("12:00:00"), Some("-9223372036854775808")), None);
    }
}
