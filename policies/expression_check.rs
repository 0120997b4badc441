//! What an expression may be, and what it reads: looked at once, when the config is loaded.

use std::collections::BTreeMap;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use crate::{
    Reads,
    expression_walk::{self, NESTED_WALK},
    resolver,
};

/// How many macros that walk a list (`all`, `exists`, `map`, `filter`) may stand within each other.
const MAX_NESTED_WALKS: usize = 1;

/// How deep an expression may be nested: each level takes some of the stack.
const MAX_DEPTH: usize = 40;
pub(crate) const TOO_DEEP: &str = "is nested deeper than 40 levels";

/// What an expression may speak of.
const VARIABLES: [&str; 3] = ["request", "subject", "workspace"];

/// What an expression speaks of, and how much it walks.
#[derive(Default)]
pub(crate) struct Check {
    pub(crate) variables: BTreeMap<&'static str, Reads>,
    /// What it reads of the subject's claims. That may be less than what is made of them for it: `claims['plan']` makes
    /// all claims and reads one.
    pub(crate) claims: Reads,
    /// Whether what is visited is known to read only what was noted already.
    is_noted: bool,
    depth: usize,
}

/// Whether brackets, or signs before a value, are nested deeper than the parser is to be asked to go.
pub(crate) fn is_nested_too_deep(text: &str) -> bool {
    let mut brackets = 0_usize;
    let mut signs = 0_usize;
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => brackets += 1,
            ')' | ']' | '}' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        match character {
            '!' | '-' => signs += 1,
            character if character.is_whitespace() => {}
            _ => signs = 0,
        }
        if brackets > MAX_DEPTH || signs > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// A variable and the fields of fields that are selected of it, as in `subject.claims.plan`.
fn path(expression: &IdedExpr) -> Option<(&str, Vec<&str>)> {
    let mut fields = Vec::new();
    let mut expression = &expression.expr;
    loop {
        match expression {
            Expr::Select(select) => {
                fields.push(select.field.as_str());
                expression = &select.operand.expr;
            }
            Expr::Ident(name) => {
                fields.reverse();
                return Some((name, fields));
            }
            _ => return None,
        }
    }
}

/// The same, where a field may also be selected as in `subject.claims['plan']`.
pub(crate) fn selected(expression: &IdedExpr) -> Option<(&str, Vec<&str>)> {
    let mut fields = Vec::new();
    let mut expression = &expression.expr;
    loop {
        match expression {
            Expr::Select(select) if !select.test || fields.is_empty() => {
                fields.push(select.field.as_str());
                expression = &select.operand.expr;
            }
            Expr::Call(call) if call.func_name == operators::INDEX => {
                let [operand, index] = call.args.as_slice() else {
                    return None;
                };
                let Expr::Literal(LiteralValue::String(field)) = &index.expr else {
                    return None;
                };
                fields.push(field.inner());
                expression = &operand.expr;
            }
            Expr::Ident(name) => {
                fields.reverse();
                return Some((name, fields));
            }
            _ => return None,
        }
    }
}

impl Check {
    pub(crate) fn visit<'e>(
        &mut self,
        expression: &'e IdedExpr,
        bound: &mut Vec<&'e str>,
        walks: usize,
    ) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        let was_noted = self.is_noted;
        self.is_noted |= self.note_claims(expression, bound);
        let visited = self.parts(expression, bound, walks);
        self.is_noted = was_noted;
        self.depth -= 1;
        visited
    }

    fn parts<'e>(
        &mut self,
        expression: &'e IdedExpr,
        bound: &mut Vec<&'e str>,
        walks: usize,
    ) -> Result<(), String> {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name, &[], bound),
            Expr::Select(select) => {
                let Some((variable, path)) = path(expression) else {
                    return self.visit(&select.operand, bound, walks);
                };
                if self.depth + path.len() > MAX_DEPTH {
                    return Err(TOO_DEEP.to_owned());
                }
                self.variable(variable, &path, bound)
            }
            Expr::Call(call) => {
                let target = call.target.as_deref();
                let mut parts = target.into_iter().chain(&call.args);
                parts.try_for_each(|part| self.visit(part, bound, walks))
            }
            Expr::List(list) => {
                let mut elements = list.elements.iter();
                elements.try_for_each(|element| self.visit(element, bound, walks))
            }
            Expr::Map(map) => self.entries(map.entries.iter().map(|e| &e.expr), bound, walks),
            Expr::Struct(made) => Err(format!("`{}` is no type that is known", made.type_name)),
            Expr::Comprehension(walk) => {
                if walks >= MAX_NESTED_WALKS {
                    return Err(NESTED_WALK.to_owned());
                }
                self.visit(&walk.iter_range, bound, walks)?;
                self.visit(&walk.accu_init, bound, walks)?;
                let before = bound.len();
                bound.extend([walk.iter_var.as_str(), walk.accu_var.as_str()]);
                bound.extend(walk.iter_var2.as_deref());
                for part in [&walk.loop_cond, &walk.loop_step, &walk.result] {
                    self.visit(part, bound, walks + 1)?;
                }
                for each in [&walk.loop_cond, &walk.loop_step] {
                    expression_walk::check(each, bound)?;
                }
                bound.truncate(before);
                Ok(())
            }
        }
    }

    fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
        bound: &mut Vec<&'e str>,
        walks: usize,
    ) -> Result<(), String> {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => self.visit(&field.value, bound, walks)?,
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, bound, walks)?;
                    self.visit(&entry.value, bound, walks)?;
                }
            }
        }
        Ok(())
    }

    /// Notes which claim is read, if the expression names one.
    fn note_claims(&mut self, expression: &IdedExpr, bound: &[&str]) -> bool {
        let Some(("subject", path)) = selected(expression) else {
            return false;
        };
        if self.is_noted || bound.contains(&"subject") {
            return self.is_noted;
        }
        match path.as_slice() {
            [] => self.claims.add(&[]),
            ["claims", path @ ..] => self.claims.add(path),
            _ => {}
        }
        true
    }

    /// Notes that a variable, or what is at the end of a path of its fields, is read.
    fn variable(&mut self, name: &str, path: &[&str], bound: &[&str]) -> Result<(), String> {
        if bound.contains(&name) {
            return Ok(());
        }
        match VARIABLES.iter().find(|variable| **variable == name) {
            Some(variable) => {
                resolver::check_path(variable, path)?;
                self.variables.entry(variable).or_default().add(path);
                Ok(())
            }
            // Names of types are values, too: `type(x) == string`.
            None if TYPES.contains(&name) => Ok(()),
            None => {
                let known = VARIABLES.join("`, `");
                Err(format!("`{name}` is no fact; there are `{known}`"))
            }
        }
    }
}

const TYPES: [&str; 12] = [
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "uint",
];
