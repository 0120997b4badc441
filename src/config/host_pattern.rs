//! Host name patterns: `*` matches one or more of `[a-z0-9-]` within one label.

/// RFC 1035, 2.3.4.
const MAX_LABEL: usize = 63;
const MAX_HOST: usize = 253;

/// Whether anyone can register a host that the pattern matches, because its `*` reaches into a public suffix, as in
/// `*.com` and `app-*.vercel.app`.
pub(super) fn is_open_to_all(host: &str) -> bool {
    let Some(star) = host.rfind('*') else {
        return false;
    };
    let fixed = host[star..].split_once('.').map(|(_, fixed)| fixed);
    fixed.is_none_or(|fixed| psl::domain_str(fixed).is_none())
}

pub(super) fn host_matches(pattern: &str, host: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == host;
    }
    let mut labels = host.split('.');
    pattern.split('.').all(|pattern| {
        labels
            .next()
            .is_some_and(|label| label_matches(pattern, label))
    }) && labels.next().is_none()
}

fn label_matches(pattern: &str, label: &str) -> bool {
    let Some((first, pieces)) = pattern.split_once('*') else {
        return pattern == label;
    };
    let Some(mut rest) = label.strip_prefix(first) else {
        return false;
    };
    let mut pieces = pieces.split('*').peekable();
    while let Some(piece) = pieces.next() {
        let Some(taken) = star_length(rest, piece, pieces.peek().is_none()) else {
            return false;
        };
        rest = &rest[taken + piece.len()..];
    }
    true
}

/// How many bytes at the start of `rest` a `*` matches if `piece` must follow it.
fn star_length(rest: &str, piece: &str, is_last: bool) -> Option<usize> {
    let taken = if is_last {
        rest.strip_suffix(piece)?.len()
    } else {
        rest.get(1..)?.find(piece)? + 1
    };
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (taken > 0 && rest[..taken].bytes().all(is_allowed)).then_some(taken)
}

/// Rejects patterns that no host can match. The error says why.
pub(super) fn check(host: &str) -> Result<(), &'static str> {
    if host.starts_with('[') {
        return if host.contains('*') {
            Err("an IP address cannot contain `*`")
        } else {
            Ok(())
        };
    }
    if !host.is_ascii() {
        return Err("the host must be ASCII");
    }
    if host.contains("**") {
        return Err("`*` matches one label or a part of it; write `*.*` for two labels");
    }
    let labels: Vec<_> = host.split('.').collect();
    if labels.iter().any(|label| label.is_empty()) {
        return Err("the host has an empty label");
    }
    if host.len() > MAX_HOST || labels.iter().any(|label| label.len() > MAX_LABEL) {
        return Err("the host or one of its labels is too long");
    }
    Ok(())
}
