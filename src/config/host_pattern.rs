//! Patterns of host names: `*` is one or more of `[a-z0-9-]` within one label.

/// The longest label of a host name, and the longest name (RFC 1035, 2.3.4).
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

pub(super) fn host_fits(pattern: &str, host: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == host;
    }
    let mut labels = host.split('.');
    pattern.split('.').all(|pattern| {
        labels
            .next()
            .is_some_and(|label| label_fits(pattern, label))
    }) && labels.next().is_none()
}

fn label_fits(pattern: &str, label: &str) -> bool {
    let Some((first, pieces)) = pattern.split_once('*') else {
        return pattern == label;
    };
    let Some(mut rest) = label.strip_prefix(first) else {
        return false;
    };
    let mut pieces = pieces.split('*').peekable();
    while let Some(piece) = pieces.next() {
        let Some(taken) = taken_by_star(rest, piece, pieces.peek().is_none()) else {
            return false;
        };
        rest = &rest[taken + piece.len()..];
    }
    true
}

/// How many bytes of `rest` a `*` takes for `piece` to follow it.
fn taken_by_star(rest: &str, piece: &str, is_last: bool) -> Option<usize> {
    let taken = if is_last {
        rest.strip_suffix(piece)?.len()
    } else {
        rest.get(1..)?.find(piece)? + 1
    };
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (taken > 0 && rest[..taken].bytes().all(is_allowed)).then_some(taken)
}

/// Whether any host can match; the error says why none can.
pub(super) fn can_exist(host: &str) -> Result<(), &'static str> {
    if host.starts_with('[') {
        return if host.contains('*') {
            Err("`*` stands for a part of a host's label, and an address has none")
        } else {
            Ok(())
        };
    }
    if !host.is_ascii() {
        return Err("a host is ASCII");
    }
    if host.contains("**") {
        return Err("one `*` stands for one label or a part of it; write `*.*` for two labels");
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
