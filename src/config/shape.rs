//! Compares values of a document with a JSON Schema, and says for each that does not fit what was found, what is expected
//! and what to write.

use std::ops::Range;

use policies::similar;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value as Json, json};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    fault::{Fault, homes, meant, unknown},
    places::join,
    schema_forms::{Names, bounds, forms, is_secret, is_type, key_of, types},
    suggestion::{ANY, Syntax, convert, integer, quoted, sample, to_json},
    variables::{Replaced, has_variable},
};

/// Keys of earlier versions, with their new names.
const RENAMED: [(&str, &str); 1] = [("imgwire.breaker.open", "probe")];

/// The name of a table of another section.
pub(super) struct Reference {
    pub(super) fault: Fault,
    pub(super) section: String,
    pub(super) name: String,
}

/// A JSON Schema with the definitions that it refers to.
pub(crate) fn with_definitions(make: impl FnOnce(&mut SchemaGenerator) -> Schema) -> Json {
    let mut generator = SchemaGenerator::default();
    let mut schema = make(&mut generator).to_value();
    schema["$defs"] = Json::Object(generator.take_definitions(true));
    schema
}

pub(crate) fn schema_of<T: JsonSchema>() -> Json {
    with_definitions(T::json_schema)
}

pub(super) struct Shape<'s> {
    pub(super) definitions: &'s Json,
    pub(super) names: &'s Names,
    /// The keys of each section that has a fixed name.
    pub(super) keys: &'s Names,
    pub(super) replaced: &'s [Replaced],
    pub(super) syntax: Syntax,
    pub(super) faults: Vec<Fault>,
    pub(super) references: Vec<Reference>,
    /// Required keys that are there by a similar name.
    pub(super) misspelt: Vec<String>,
}

impl<'s> Shape<'s> {
    /// Checks the value of the key at `path`. Returns whether it can be used. Removes keys within it that cannot.
    pub(super) fn visit(
        &mut self,
        path: &str,
        schema: &'s Json,
        value: &mut Spanned<DeValue<'_>>,
    ) -> bool {
        let span = value.span();
        let forms = forms(self.definitions, schema);
        if forms.iter().all(|form| types(form).next().is_none()) {
            return true;
        }
        let found = type_of(value.get_ref());
        let fitting: Vec<_> = forms
            .iter()
            .copied()
            .filter(|form| is_type(form, found))
            .collect();
        if fitting.is_empty() {
            return self.wrong(path, span, schema, value.get_ref());
        }
        match value.get_mut() {
            DeValue::String(text) => {
                let mut known = fitting.iter().filter_map(|form| form["const"].as_str());
                if known.clone().any(|known| known == text) {
                    return true;
                }
                if fitting.len() == known.clone().count() {
                    let known: Vec<_> = known.by_ref().collect();
                    let message = self.not_one_of(path, &known, text);
                    return self.fault(path, span, message);
                }
                let section = fitting.iter().find_map(|form| form["x-section"].as_str());
                // A name that is an example stands for something else than a table.
                let is_fixed = forms.iter().any(|form| form["examples"][0] == **text);
                if let Some(section) = section.filter(|_| !is_fixed) {
                    let fault = Fault {
                        span,
                        key: path.to_owned(),
                        message: String::new(),
                    };
                    let (section, name) = (section.to_owned(), text.to_string());
                    self.references.push(Reference {
                        fault,
                        section,
                        name,
                    });
                }
                true
            }
            value @ DeValue::Integer(_) => {
                let number = integer(value);
                let fits = |form: &&Json| {
                    let (smallest, largest) = bounds(form);
                    number.is_some_and(|number| number >= smallest && number <= largest)
                };
                fitting.iter().any(fits) || self.wrong(path, span, schema, value)
            }
            DeValue::Array(elements) => {
                let Some(items) = fitting.iter().find_map(|form| form.get("items")) else {
                    return true;
                };
                let mut fits = true;
                for (index, element) in elements.iter_mut().enumerate() {
                    fits &= self.visit(&format!("{path}[{index}]"), items, element);
                }
                fits
            }
            DeValue::Table(table) => {
                self.table(path, &fitting, table);
                true
            }
            _ => true,
        }
    }

    fn table(&mut self, path: &str, fitting: &[&'s Json], table: &mut DeTable<'_>) {
        let properties: Vec<_> = fitting
            .iter()
            .filter_map(|form| form["properties"].as_object())
            .flatten()
            .collect();
        let others = fitting
            .iter()
            .find_map(|form| form.get("additionalProperties"));
        let known_names: Vec<_> = properties.iter().map(|(name, _)| name.as_str()).collect();
        let mut unusable = Vec::new();
        // The keys that unknown ones probably mean.
        let mut misspelt = Vec::new();
        for (key, value) in table.iter_mut() {
            let path = join(path, key.get_ref());
            let known = properties.iter().find(|(name, _)| *name == key.get_ref());
            let fits = match (known, others) {
                (Some((_, schema)), _) => self.visit(&path, schema, value),
                (None, Some(Json::Bool(false))) => {
                    let message = match RENAMED.iter().find(|(before, _)| *before == path) {
                        Some((_, new_name)) => format!("was renamed to `{new_name}`"),
                        None => {
                            misspelt.extend(meant(key.get_ref(), &known_names));
                            self.unknown_key(key.get_ref(), &known_names)
                        }
                    };
                    self.fault(&path, key.span(), message)
                }
                (None, Some(schema)) => self.visit(&path, schema, value),
                (None, None) => true,
            };
            if !fits {
                unusable.push(key.get_ref().to_string());
            }
        }
        if let [form] = fitting {
            let required = form["required"].as_array().into_iter().flatten();
            let required = required.filter_map(Json::as_str);
            for key in required.filter(|key| !table.contains_key(*key)) {
                // Its value has another name.
                let renamed = RENAMED.iter().any(|(before, new_name)| {
                    *new_name == key && unusable.iter().any(|it| join(path, it) == *before)
                });
                let path = join(path, key);
                if misspelt.contains(&key) {
                    self.misspelt.push(path);
                } else if !renamed {
                    let example = self.example(&form["properties"][key]);
                    let example = self.syntax.assignment(&path, &example);
                    let message = format!("is required; write for example {example}");
                    // The table's position is the best there is.
                    self.fault(&path, 0..0, message);
                }
            }
        }
        for key in unusable {
            table.remove(key.as_str());
        }
    }

    fn unknown_key(&self, key: &str, known: &[&str]) -> String {
        match homes(self.keys, key) {
            Some(homes) if meant(key, known).is_none() => {
                format!("unknown key `{key}`; it is a key of {homes}")
            }
            _ => unknown("key", key, known.iter().copied()),
        }
    }

    fn fault(&mut self, path: &str, span: Range<usize>, message: String) -> bool {
        self.faults.push(Fault {
            span,
            key: path.to_owned(),
            message,
        });
        false
    }

    /// Records that a value has the wrong type.
    fn wrong(
        &mut self,
        path: &str,
        span: Range<usize>,
        schema: &'s Json,
        found: &DeValue<'_>,
    ) -> bool {
        let forms = forms(self.definitions, schema);
        let is_secret = forms.iter().any(|form| is_secret(form));
        let shown = match found {
            DeValue::String(_) if is_secret => {
                let message = match (&*key_of(path), found.as_str()) {
                    ("jwks", Some(url)) if url.starts_with("http") => {
                        "is the place of the key set; write it as `jwks_url`"
                    }
                    ("jwks" | "public_key", _) => {
                        "must not be written in the config; write { env = \"NAME\" } or { file = \"PATH\" }"
                    }
                    _ => {
                        "a secret must not be written in the config; write { env = \"NAME\" } or { file = \"PATH\" }"
                    }
                };
                return self.fault(path, span, message.to_owned());
            }
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            DeValue::String(_) if forms.iter().all(|form| is_closed(form)) => "a string".to_owned(),
            scalar => self.syntax.excerpt(&to_json(scalar)),
        };
        let found = to_json(found);
        let expected = self.expected(&forms);
        let is_section = !path.contains(['.', '[']) && forms.iter().all(|form| is_closed(form));
        if is_section && self.syntax == Syntax::Toml && !path.is_empty() {
            let message = format!("expected {expected}, found {shown}; write [{path}]");
            return self.fault(path, span, message);
        }
        if has_variable(self.replaced, path) {
            let example = self.syntax.assignment(path, &self.example(schema));
            let message = format!(
                "expected {expected}, and a variable makes a string; write for example {example}"
            );
            return self.fault(path, span, message);
        }
        let written = convert(self.definitions, schema, &found)
            .or_else(|| sample(self.definitions, self.names, schema))
            .or_else(|| quoted(&forms, &found))
            .unwrap_or_else(|| json!(ANY));
        let write = self.syntax.assignment(path, &written);
        self.fault(
            path,
            span,
            format!("expected {expected}, found {shown}; write {write}"),
        )
    }

    fn example(&self, schema: &'s Json) -> Json {
        sample(self.definitions, self.names, schema).unwrap_or_else(|| json!(ANY))
    }

    /// Says what a key may have, in the words of the file.
    fn expected(&self, forms: &[&'s Json]) -> String {
        let mut all: Vec<String> = Vec::new();
        let consts: Vec<_> = forms
            .iter()
            .filter_map(|form| form["const"].as_str())
            .collect();
        if !consts.is_empty() {
            all.push(one_of(&consts));
        }
        for form in forms.iter().filter(|form| form.get("const").is_none()) {
            let titled = form["title"]
                .as_str()
                .filter(|title| title.starts_with("a ") || title.starts_with("an "));
            for name in types(form) {
                let text = match name {
                    "boolean" => "true or false".to_owned(),
                    "integer" => whole_number(form),
                    "string" => match titled {
                        Some(title) => {
                            format!("{title} such as {}", self.syntax.show(&self.example(form)))
                        }
                        None => "a string".to_owned(),
                    },
                    "array" => "a list".to_owned(),
                    _ if is_secret(form) => self.syntax.show(&self.example(form)),
                    _ => "a table".to_owned(),
                };
                if !all.contains(&text) {
                    all.push(text);
                }
            }
        }
        match all.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{}, or {last}", rest.join(", ")),
            _ => all.concat(),
        }
    }

    fn not_one_of(&self, path: &str, known: &[&str], found: &str) -> String {
        let close = similar(found.trim(), known);
        let found = self.syntax.excerpt(&json!(found));
        let expected = one_of(known);
        match close {
            Some(close) => {
                let write = self.syntax.assignment(path, &json!(close));
                format!("expected {expected}, found {found}; did you mean `{close}`? write {write}")
            }
            None => {
                let write = self.syntax.assignment(path, &json!(known[0]));
                format!("expected {expected}, found {found}; write for example {write}")
            }
        }
    }
}

fn whole_number(form: &Json) -> String {
    let (smallest, largest) = bounds(form);
    let of_format = form["format"]
        .as_str()
        .is_some_and(|format| format == "uint32");
    match (smallest, largest) {
        (_, largest) if !of_format && largest < i64::MAX.into() => {
            format!("a whole number from {} to {largest}", smallest.max(0))
        }
        (smallest, _) if smallest >= 0 => format!("a whole number of at least {smallest}"),
        _ => "a whole number".to_owned(),
    }
}

fn one_of(known: &[&str]) -> String {
    let known: Vec<_> = known.iter().map(|known| format!("{known:?}")).collect();
    match known.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => known.concat(),
    }
}

/// Whether only a table of fixed keys fits.
fn is_closed(form: &Json) -> bool {
    is_type(form, "object") && !form["additionalProperties"].is_object()
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Datetime(_) => "datetime",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
    }
}
