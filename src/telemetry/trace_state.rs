//! `tracestate` (W3C Trace Context), which the gate passes on unchanged.

use actix_web::http::header::{HeaderMap, HeaderValue};

/// In bytes. Vendors must propagate this much, and may drop longer values.
const MAX_BYTES: usize = 512;

/// The `tracestate` of a request in one line; `None` if it is missing, too long or not ASCII.
#[must_use]
pub fn trace_state(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines: Option<Vec<_>> = headers
        .get_all("tracestate")
        .map(|line| line.to_str().ok())
        .collect();
    let joined = lines?.join(",");
    let fits = (1..=MAX_BYTES).contains(&joined.len());
    fits.then(|| HeaderValue::try_from(joined).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    fn of(lines: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line).expect("the value is valid");
            headers.append(HeaderName::from_static("tracestate"), value);
        }
        let state = trace_state(&headers)?;
        Some(state.to_str().expect("the state is ASCII").to_owned())
    }

    #[test]
    fn a_state_of_at_most_512_bytes_is_passed_on_in_one_line() {
        let long = |length: usize| "v".repeat(length).into_bytes();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[b"a=1"]).as_deref(), Some("a=1"));
        assert_eq!(of(&[b"a=1", b"b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(of(&[&long(512)]).map(|state| state.len()), Some(512));
        assert_eq!(of(&[&long(513)]), None);
        assert_eq!(
            of(&[&long(300), &long(211)]).map(|state| state.len()),
            Some(512)
        );
        assert_eq!(of(&[&long(300), &long(212)]), None);
        assert_eq!(of(&["a=\u{e9}".as_bytes()]), None);
    }
}
