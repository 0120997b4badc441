//! What to write in place of a value that does not fit its schema.

use policies::{ByteAmount, excerpt};
use serde_json::{Map, Value as Json, json};
use toml::de::DeValue;

use super::schema_forms::{Names, bounds, forms, is_secret, is_type, key_of, layers, types};

/// The syntax of the file that the operator writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Syntax {
    #[default]
    Toml,
    Json,
}

impl Syntax {
    /// A value, as the file has it.
    pub(crate) fn show(self, value: &Json) -> String {
        match (self, value) {
            (Self::Toml, Json::Object(table)) => {
                let entries = table.iter().map(|(key, value)| self.pair(key, value));
                let entries: Vec<_> = entries.collect();
                format!("{{ {} }}", entries.join(", "))
            }
            (Self::Toml, Json::Array(elements)) => {
                let elements: Vec<_> = elements.iter().map(|value| self.show(value)).collect();
                format!("[{}]", elements.join(", "))
            }
            _ => value.to_string(),
        }
    }

    /// A value of the config in a message, shortened.
    pub(super) fn excerpt(self, value: &Json) -> String {
        match value {
            Json::String(text) => json!(excerpt(text)).to_string(),
            other => self.show(other),
        }
    }

    fn pair(self, key: &str, value: &Json) -> String {
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let value = self.show(value);
        match self {
            Self::Toml if key.bytes().all(is_bare) && !key.is_empty() => format!("{key} = {value}"),
            Self::Toml => format!("{} = {value}", json!(key)),
            Self::Json => format!("{}: {value}", json!(key)),
        }
    }

    /// The key at `path` with a value; only the value for an element of a list.
    pub(super) fn assignment(self, path: &str, value: &Json) -> String {
        if path.ends_with(']') {
            return self.show(value);
        }
        self.pair(&key_of(path), value)
    }
}

/// The value that was probably meant by one of the wrong type.
pub(super) fn convert(definitions: &Json, schema: &Json, found: &Json) -> Option<Json> {
    forms(definitions, schema)
        .into_iter()
        .find_map(|form| convert_to(definitions, form, found))
}

fn convert_to(definitions: &Json, form: &Json, found: &Json) -> Option<Json> {
    if let Json::Array(elements) = found
        && let [only] = &**elements
        && !is_type(form, "array")
    {
        return fitting(definitions, form, only);
    }
    types(form).find_map(|name| match (name, found) {
        ("integer", Json::String(text)) => {
            let digits = text.trim().replace(['_', ',', ' ', '\''], "");
            in_bounds(form, digits.parse().ok()?)
        }
        ("integer", Json::Number(number)) => {
            let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
            in_bounds(form, number as i128)
        }
        ("boolean", Json::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(json!(true)),
            "false" | "no" | "off" | "0" => Some(json!(false)),
            _ => None,
        },
        ("boolean", Json::Number(number)) => match number.as_u64()? {
            0 => Some(json!(false)),
            1 => Some(json!(true)),
            _ => None,
        },
        ("string", Json::Number(number)) => match form["title"].as_str() {
            Some("a duration") => number
                .as_u64()
                .filter(|n| (1..=31_622_400).contains(n))
                .map(|n| json!(format!("{n}s"))),
            Some("a size") => number
                .as_u64()
                .filter(|n| *n > 0)
                .map(|n| json!(ByteAmount::new(n).to_string())),
            _ => None,
        },
        ("array", scalar @ (Json::String(_) | Json::Number(_) | Json::Object(_))) => {
            let items = form.get("items")?;
            let element = fitting(definitions, items, scalar)?;
            Some(json!([element]))
        }
        ("object", Json::String(text)) => {
            let others = form
                .get("additionalProperties")
                .filter(|others| others.is_object())?;
            let key = form["examples"][0].as_object()?.keys().next()?;
            let value = fitting(definitions, others, &json!(text))?;
            Some(Json::Object(Map::from_iter([(key.clone(), value)])))
        }
        _ => None,
    })
}

/// The value itself if it fits, or what was meant by it.
fn fitting(definitions: &Json, schema: &Json, value: &Json) -> Option<Json> {
    let forms = forms(definitions, schema);
    let strings: Vec<_> = forms
        .iter()
        .filter(|form| is_type(form, "string"))
        .collect();
    if let Json::String(text) = value
        && !strings.is_empty()
    {
        let is_closed = strings.iter().all(|form| form.get("const").is_some());
        let is_known = strings.iter().any(|form| form["const"] == **text);
        return (is_known || !is_closed).then(|| value.clone());
    }
    convert(definitions, schema, value)
}

fn in_bounds(form: &Json, number: i128) -> Option<Json> {
    let (smallest, largest) = bounds(form);
    let fits = number >= smallest && number <= largest;
    let number = i64::try_from(number).ok().filter(|_| fits);
    number.map(|number| json!(number))
}

/// What stands for a value of which nothing is known.
pub(super) const ANY: &str = "VALUE";

/// An example of a key's value: of the schema, its default, or of its description.
pub(super) fn sample(definitions: &Json, names: &Names, schema: &Json) -> Option<Json> {
    let all = forms(definitions, schema);
    let layers = layers(definitions, schema);
    let layers = || layers.iter().chain(&all);
    let given = layers().find_map(|form| {
        let example = form["examples"].get(0).or_else(|| form.get("const"));
        let default = form.get("default").filter(|default| has_content(default));
        example.or(default).cloned()
    });
    if given.is_some() {
        return given;
    }
    let described = layers().find_map(|form| {
        let quoted = form["description"].as_str()?.split('`').skip(1).step_by(2);
        let mut values = quoted.filter_map(toml_value);
        values.find(|value| all.iter().any(|form| fits(form, value)))
    });
    if described.is_some() {
        return described;
    }
    let form = all.first()?;
    let section = form["x-section"].as_str();
    if let Some(section) = section {
        let known = names.get(section).and_then(|names| names.first());
        return Some(json!(known.map_or("NAME", String::as_str)));
    }
    if is_secret(form) {
        return Some(match form["properties"].get("env") {
            Some(_) => json!({ "env": "NAME" }),
            None => json!({ "file": "PATH" }),
        });
    }
    let inner = |schema: &Json| sample(definitions, names, schema).unwrap_or_else(|| json!(ANY));
    Some(match types(form).next()? {
        "boolean" => json!(true),
        "integer" => json!(i64::try_from(bounds(form).0.max(1)).unwrap_or(1)),
        "array" => json!([inner(&form["items"])]),
        "object" => {
            let required = form["required"].as_array().into_iter().flatten();
            let required = required.filter_map(Json::as_str);
            let entry = |key: &str| {
                let value = inner(&form["properties"][key]);
                (key.to_owned(), value)
            };
            let mut entries: Map<_, _> = required.map(entry).collect();
            if let Some(others) = form.get("additionalProperties").filter(|it| it.is_object()) {
                entries.insert("NAME".to_owned(), inner(others));
            } else if entries.is_empty()
                && let Some((key, _)) = form["properties"]
                    .as_object()
                    .and_then(|all| all.iter().next())
            {
                entries.extend([entry(key)]);
            }
            Json::Object(entries)
        }
        _ => return None,
    })
}

/// A number or a truth value, as the text that it would be in quotes.
pub(super) fn quoted(forms: &[&Json], found: &Json) -> Option<Json> {
    let is_scalar = matches!(found, Json::Number(_) | Json::Bool(_));
    let takes_text = forms.iter().any(|form| is_type(form, "string"));
    (is_scalar && takes_text).then(|| json!(found.to_string()))
}

fn has_content(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Array(elements) => !elements.is_empty(),
        Json::Object(entries) => !entries.is_empty(),
        _ => true,
    }
}

/// A value in the syntax of TOML, as descriptions quote it.
fn toml_value(text: &str) -> Option<Json> {
    let table: toml::Table = toml::from_str(&format!("x = {text}")).ok()?;
    let value = table.get("x").filter(|_| table.len() == 1)?;
    serde_json::to_value(value).ok().filter(has_content)
}

fn fits(form: &Json, value: &Json) -> bool {
    let name = match value {
        Json::String(_) => "string",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "integer",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
        Json::Null => return false,
    };
    is_type(form, name)
}

pub(super) fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

pub(super) fn to_json(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(number) => match integer(value).map(i64::try_from) {
            Some(Ok(number)) => json!(number),
            _ => number
                .as_str()
                .parse::<f64>()
                .map_or(Json::Null, Json::from),
        },
        DeValue::Float(number) => number
            .as_str()
            .parse::<f64>()
            .map_or(Json::Null, Json::from),
        DeValue::Boolean(value) => json!(value),
        DeValue::Datetime(time) => json!(time.to_string()),
        DeValue::Array(elements) => elements
            .iter()
            .map(|element| to_json(element.get_ref()))
            .collect(),
        DeValue::Table(table) => {
            let entries = table.iter();
            let entries =
                entries.map(|(key, value)| (key.get_ref().to_string(), to_json(value.get_ref())));
            Json::Object(entries.collect::<Map<_, _>>())
        }
    }
}
