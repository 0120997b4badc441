//! Replaces `${NAME}` and `${NAME:-default}` in the strings of a config by environment variables.

use std::borrow::Cow;

use toml::de::DeValue;

/// A string of the config in which variables were replaced. Messages show `written`.
#[derive(Debug)]
pub(super) struct Replaced {
    /// The key.
    path: String,
    /// As the config has it.
    written: String,
    text: String,
    /// The values of variables, and the references in their place.
    values: Vec<(String, String)>,
}

/// Shorter values stand in a message by chance: in one about their own key, and in any other.
const MIN_OWN: usize = 3;
const MIN_OTHER: usize = 8;

/// Puts the references back in place of the values of variables, in a message about the key at `path`.
pub(super) fn conceal(replaced: &[Replaced], path: &str, message: String) -> String {
    let mut patterns: Vec<(&str, &str)> = Vec::new();
    for replaced in replaced {
        let is_own = is_within(path, &replaced.path) || is_within(&replaced.path, path);
        if is_own && !replaced.text.is_empty() {
            patterns.push((&replaced.text, &replaced.written));
        }
        let min = if is_own { MIN_OWN } else { MIN_OTHER };
        let values = replaced.values.iter();
        let values = values.filter(|(value, _)| value.len() >= min);
        patterns.extend(values.map(|(value, reference)| (&**value, &**reference)));
    }
    if patterns.is_empty() {
        return message;
    }
    patterns.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    let (mut concealed, mut rest) = (String::new(), message.as_str());
    while let Some(char) = rest.chars().next() {
        // Some messages show a text in lower case.
        let found = patterns.iter().find(|(text, _)| {
            let start = rest.get(..text.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(text))
        });
        let length = match found {
            Some((text, by)) => {
                concealed.push_str(by);
                text.len()
            }
            None => {
                concealed.push(char);
                char.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    concealed
}

/// Whether variables were replaced in the value of the key at `path`.
pub(super) fn has_variable(replaced: &[Replaced], path: &str) -> bool {
    replaced.iter().any(|replaced| replaced.path == path)
}

/// Looks up an environment variable.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What was replaced in a document, and what could not be: keys with messages.
#[derive(Default)]
pub(super) struct Replacement {
    pub(super) replaced: Vec<Replaced>,
    pub(super) faults: Vec<(String, String)>,
}

impl Replacement {
    /// Replaces the variables in all strings of the value at `path`. Keys stay as they are.
    pub(super) fn replace(&mut self, path: &str, value: &mut DeValue<'_>, environment: Lookup<'_>) {
        match value {
            DeValue::Table(table) => {
                for (key, value) in table.iter_mut() {
                    let path = format!("{path}.{}", key.get_ref());
                    self.replace(&path, value.get_mut(), environment);
                }
            }
            DeValue::Array(elements) => {
                for (index, element) in elements.iter_mut().enumerate() {
                    self.replace(&format!("{path}[{index}]"), element.get_mut(), environment);
                }
            }
            DeValue::String(text) => match expand(text, environment) {
                Ok(None) => {}
                Ok(Some(expanded)) => {
                    self.replaced.push(Replaced {
                        path: path.to_owned(),
                        written: text.clone().into_owned(),
                        text: expanded.text.clone(),
                        values: expanded.values,
                    });
                    *text = Cow::Owned(expanded.text);
                }
                Err(message) => self.faults.push((path.to_owned(), message)),
            },
            _ => {}
        }
    }
}

/// Whether `path` is `outer`, or a key below it.
pub(super) fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[derive(Debug, Default)]
struct Expanded {
    text: String,
    values: Vec<(String, String)>,
}

/// Replaces the references in `text` once: what is put in is not read again. Returns `None` if there is none.
fn expand(text: &str, environment: Lookup<'_>) -> Result<Option<Expanded>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let (mut expanded, mut rest) = (Expanded::default(), text);
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            expanded.text.push_str(before);
            expanded.text.push_str("${");
            rest = &reference[2..];
            continue;
        }
        expanded.text.push_str(before);
        let Some(end) = reference.find('}') else {
            return Err(format!(
                "`{reference}` has no closing `}}`; write ${{NAME}} or ${{NAME:-default}}, or $${{ for the characters ${{"
            ));
        };
        let (reference, after) = reference.split_at(end + 1);
        match resolve(reference, environment)? {
            Resolved::Value(value) => {
                expanded.text.push_str(&value);
                expanded.values.push((value, reference.to_owned()));
            }
            Resolved::Default(text) => expanded.text.push_str(text),
        }
        rest = after;
    }
    expanded.text.push_str(rest);
    Ok(Some(expanded))
}

enum Resolved<'a> {
    Value(String),
    /// Of the config.
    Default(&'a str),
}

/// The value of `${NAME}` or `${NAME:-default}`. As in a shell, the default also stands for an empty variable.
fn resolve<'a>(reference: &'a str, environment: Lookup<'_>) -> Result<Resolved<'a>, String> {
    let inside = &reference[2..reference.len() - 1];
    if inside.contains("${") {
        return Err(format!(
            "`{reference}` has a reference inside a reference, which is not possible; a default is plain text"
        ));
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = !name.is_empty()
        && !name.starts_with(|char: char| char.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err(format!(
            "`{reference}` does not name an environment variable; write ${{NAME}} or ${{NAME:-default}}, or $${{ for the \
             characters ${{"
        ));
    }
    match (environment(name), default) {
        (Some(value), None) => Ok(Resolved::Value(value)),
        (Some(value), Some(_)) if !value.is_empty() => Ok(Resolved::Value(value)),
        (_, Some(default)) => Ok(Resolved::Default(default)),
        (None, None) => Err(format!(
            "the environment variable `{name}` is not set; set it, or write ${{{name}:-default}}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "PORT" => Some("9000".to_owned()),
            "EMPTY" => Some(String::new()),
            "LITERAL" => Some("${PORT}".to_owned()),
            _ => None,
        };
        let expanded = expand(text, &environment)?;
        Ok(expanded.map_or_else(|| text.to_owned(), |expanded| expanded.text))
    }

    #[test]
    fn references_are_replaced_once() {
        for (text, expected) in [
            ("0.0.0.0:${PORT}", "0.0.0.0:9000"),
            ("${PORT}${PORT}", "90009000"),
            ("0.0.0.0:${PORT:-8080}", "0.0.0.0:9000"),
            ("0.0.0.0:${OTHER:-8080}", "0.0.0.0:8080"),
            ("${EMPTY:-8080}", "8080"),
            ("a${EMPTY}b", "ab"),
            ("${OTHER:-}", ""),
            ("${OTHER:-a:-b}", "a:-b"),
            ("${LITERAL}", "${PORT}"),
            ("$${PORT}", "${PORT}"),
            ("$$${PORT}", "$${PORT}"),
            ("$PORT {PORT} $$ $", "$PORT {PORT} $$ $"),
            ("{workspace}/${PORT}", "{workspace}/9000"),
        ] {
            assert_eq!(text_of(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn messages_show_the_reference_in_place_of_the_value() {
        let replaced = [Replaced {
            path: "server.bind".to_owned(),
            written: "${HOST}:${PORT:-80}".to_owned(),
            text: "Gate.Example:80".to_owned(),
            values: vec![("Gate.Example".to_owned(), "${HOST}".to_owned())],
        }];
        let shown = |path, message: &str| conceal(&replaced, path, message.to_owned());
        for path in ["server.bind", "server", "server.bind[0]"] {
            assert_eq!(
                shown(path, "`gate.example:80` is none; nor is gate.example, 80"),
                "`${HOST}:${PORT:-80}` is none; nor is ${HOST}, 80"
            );
        }
        assert_eq!(
            shown("server.binder", "`gate.example:80`, ä"),
            "`${HOST}:80`, ä"
        );
    }

    #[test]
    fn other_references_are_faults() {
        for (text, part) in [
            ("${OTHER}", "`OTHER` is not set"),
            ("a ${PORT", "no closing `}`"),
            ("${}", "does not name"),
            ("${1}", "does not name"),
            ("${PORT-8080}", "does not name"),
            ("${ PORT }", "does not name"),
            ("${OTHER:-${PORT}}", "inside a reference"),
        ] {
            let message = text_of(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
