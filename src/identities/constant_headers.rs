//! `headers` of a `remote` identity: headers that the gate sends with every call, for example the scheme that the app's
//! users see.

use std::collections::BTreeMap;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{request_view::TokenSource, section::Section};

/// Headers with constant values, by the header's name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("examples" = [{ "X-Forwarded-Proto": "https" }]))]
pub(super) struct ConstantHeaders(BTreeMap<String, String>);

impl ConstantHeaders {
    /// Checks all of them. `forward` is what the gate sends besides.
    pub(super) fn resolve(
        &self,
        section: &mut Section<'_>,
        forward: &[TokenSource],
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (name, value) in &self.0 {
            let is_known = |header: &HeaderName| headers.iter().any(|(other, _)| other == header);
            match parse(name, value, forward) {
                Ok((header, _)) if is_known(&header) => {
                    section.fault(&key(name), "is listed twice, in different case");
                }
                Ok(header) => headers.push(header),
                Err(message) => section.fault(&key(name), message),
            }
        }
        headers
    }
}

fn key(name: &str) -> String {
    format!("headers.{name}")
}

fn parse(
    name: &str,
    value: &str,
    forward: &[TokenSource],
) -> Result<(HeaderName, HeaderValue), &'static str> {
    let header: HeaderName = name.parse().map_err(|_| "is not a valid header name")?;
    if let Some(reason) = refusal(&header) {
        return Err(reason);
    }
    if forward.contains(&TokenSource::Header(header.clone())) {
        return Err("is a header that `forward` sends; write it in one place");
    }
    match HeaderValue::from_str(value) {
        Ok(text) if value.is_ascii() && !value.trim().is_empty() => Ok((header, text)),
        _ => Err("must have a value of visible ASCII characters and spaces"),
    }
}

/// Why a header cannot be constant.
fn refusal(name: &HeaderName) -> Option<&'static str> {
    const OF_THE_CONNECTION: [&str; 9] = [
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if OF_THE_CONNECTION.contains(&name.as_str()) {
        Some("describes the connection, which the gate's HTTP client manages")
    } else if *name == header::HOST {
        Some("is the host of `url`")
    } else if *name == header::CONTENT_LENGTH {
        Some("describes a body, and the gate sends none")
    } else if *name == header::COOKIE {
        Some("holds credentials; name the user's cookies in `forward`")
    } else if *name == header::AUTHORIZATION || *name == header::PROXY_AUTHORIZATION {
        Some(
            "holds credentials, which cannot be plain text; name the user's credentials in `forward`",
        )
    } else {
        None
    }
}
