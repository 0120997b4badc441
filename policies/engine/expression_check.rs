//! Checks what an expression contains, and finds what it reads. This happens once, when the config is loaded.
//!
//! A macro may do nothing for each entry of a list whose cost grows with another fact. Claims may have thousands of
//! entries, and work on one claim for each entry of another multiplies them. So within a macro, an expression may compare
//! a claim with something shorter, test for its presence, and select a member of it. It must not search, iterate over,
//! copy, join or match a claim.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use crate::{
    Reads,
    engine::{cel_environment::is_type, fact_list},
};

/// Each level of nesting uses some stack.
const MAX_DEPTH: usize = 40;
pub(crate) const TOO_DEEP: &str = "is nested deeper than 40 levels";

/// What an expression reads.
#[derive(Default)]
pub(crate) struct Check {
    /// The facts that its variables need. `claims['plan']` needs all claims.
    pub(crate) variables: Reads,
    /// What it reads of the user's claims. `claims['plan']` reads one of them.
    pub(crate) claims: Reads,
    depth: usize,
}

/// Whether brackets, or signs before a value, are nested too deeply for the parser.
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

/// A variable and the fields of fields that are selected of it, as in `subject.claims.plan` and
/// `subject.claims['plan']`.
struct Path<'e> {
    names: Vec<&'e str>,
    /// How many of the names come before the first bracket.
    dotted: usize,
}

impl<'e> Path<'e> {
    fn of(expression: &'e IdedExpr) -> Option<Self> {
        let (mut names, mut dotted) = (Vec::new(), 1);
        let mut expression = &expression.expr;
        loop {
            match expression {
                Expr::Select(select) if !select.test || names.is_empty() => {
                    names.push(select.field.as_str());
                    dotted += 1;
                    expression = &select.operand.expr;
                }
                Expr::Call(call)
                    if call.func_name == operators::INDEX
                        && let [operand, index] = call.args.as_slice()
                        && let Expr::Literal(LiteralValue::String(name)) = &index.expr =>
                {
                    names.push(name.inner());
                    dotted = 1;
                    expression = &operand.expr;
                }
                Expr::Ident(name) => {
                    names.push(name);
                    names.reverse();
                    return Some(Self { names, dotted });
                }
                _ => return None,
            }
        }
    }
}

impl Check {
    /// Checks an expression or a part of one; `bound` are the variables of the surrounding macros. The error says why
    /// the expression is rejected.
    pub(crate) fn visit(&mut self, part: &IdedExpr, bound: &[&str]) -> Result<Size, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        let size = match Path::of(part) {
            Some(path) => self.path(&path, bound)?,
            None => self.parts(part, bound)?,
        };
        self.depth -= 1;
        let is_test = matches!(&part.expr, Expr::Select(select) if select.test);
        Ok(if is_test { Size::Short } else { size })
    }

    fn parts(&mut self, part: &IdedExpr, bound: &[&str]) -> Result<Size, String> {
        match &part.expr {
            Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Ok(Size::Short),
            Expr::Select(select) => self.visit(&select.operand, bound),
            Expr::Call(call) => {
                let arguments: Vec<_> = call
                    .target
                    .as_deref()
                    .into_iter()
                    .chain(&call.args)
                    .collect();
                let sizes = arguments.iter().map(|part| self.visit(part, bound));
                let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
                if bound.is_empty() {
                    return Ok(Size::Short);
                }
                size_of_call(&call.func_name, &arguments, &sizes)
            }
            Expr::List(list) => self.literal(list.elements.iter(), bound),
            Expr::Map(map) => {
                let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                    EntryExpr::StructField(field) => [Some(&field.value), None],
                    EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
                });
                self.literal(parts.flatten(), bound)
            }
            Expr::Struct(made) => Err(format!("unknown type `{}`", made.type_name)),
            Expr::Comprehension(_) if !bound.is_empty() => Err(NESTED_WALK.to_owned()),
            Expr::Comprehension(walk) => {
                self.visit(&walk.iter_range, bound)?;
                self.visit(&walk.accu_init, bound)?;
                let mut bound = vec![walk.iter_var.as_str(), walk.accu_var.as_str()];
                bound.extend(walk.iter_var2.as_deref());
                for each in [&walk.loop_cond, &walk.loop_step, &walk.result] {
                    self.visit(each, &bound)?;
                }
                Ok(Size::Short)
            }
        }
    }

    fn literal<'e>(
        &mut self,
        parts: impl Iterator<Item = &'e IdedExpr>,
        bound: &[&str],
    ) -> Result<Size, String> {
        let mut largest = Size::Short;
        for part in parts {
            largest = largest.max(self.visit(part, bound)?);
        }
        if largest == Size::Claim && !bound.is_empty() {
            return Err(SEARCH.to_owned());
        }
        Ok(largest)
    }

    /// Records a read of the end of a path.
    fn path(&mut self, path: &Path<'_>, bound: &[&str]) -> Result<Size, String> {
        let Path { names, dotted } = path;
        if self.depth + names.len() - 1 > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        if bound.contains(&names[0]) {
            return Ok(Size::Entry);
        }
        if is_type(names[0]) {
            return Ok(Size::Short);
        }
        fact_list::check_path(names)?;
        self.variables.add(&names[..*dotted]);
        match names.as_slice() {
            ["subject"] => self.claims = Reads::All,
            ["subject", "claims", path @ ..] => self.claims.add(path),
            _ => return Ok(Size::Short),
        }
        Ok(Size::Claim)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// At most as long as the expression itself, an id or a number.
    Short,
    /// The entry, or derived from it. All entries together are as large as the list.
    Entry,
    /// A claim, which may be large.
    Claim,
}

/// Functions with a short result whose cost does not grow with the argument.
const CONVERSIONS: [&str; 4] = ["double", "int", "type", "uint"];

const COMPARISONS: [&str; 6] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
];

const NESTED_WALK: &str = "iterates over a list for each entry of another list, which may be slow";

const SEARCH: &str = "searches, copies or compares whole claims for each entry of a list, which may be slow; \
                      do that outside of the macro, or compare the entry itself";

const PATTERN: &str = "uses a fact as the pattern of `matches` for each entry of a list; write the pattern as a string";

/// The size of the result of a function or an operator with arguments of these sizes, for each entry of a list. The
/// error says what may be slow.
fn size_of_call(name: &str, arguments: &[&IdedExpr], sizes: &[Size]) -> Result<Size, String> {
    let is_claim = |size: &Size| *size == Size::Claim;
    let largest = sizes.iter().max().copied().unwrap_or(Size::Short);
    let (fits, result) = match name {
        operators::LOGICAL_AND
        | operators::LOGICAL_OR
        | operators::LOGICAL_NOT
        | operators::NOT_STRICTLY_FALSE => (true, Size::Short),
        operators::CONDITIONAL => (true, sizes.iter().skip(1).max().copied().unwrap_or(largest)),
        // Both take time in proportion to the shorter argument.
        "startsWith" | "endsWith" => (!sizes.iter().all(is_claim), Size::Short),
        name if COMPARISONS.contains(&name) => (!sizes.iter().all(is_claim), Size::Short),
        operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => (
            !sizes.iter().skip(1).any(is_claim),
            sizes.first().copied().unwrap_or(largest),
        ),
        operators::IN => (!sizes.last().is_some_and(is_claim), Size::Short),
        "matches" if !arguments.last().is_some_and(|pattern| is_text(pattern)) => {
            return Err(PATTERN.to_owned());
        }
        name if CONVERSIONS.contains(&name) => (true, Size::Short),
        _ => (largest < Size::Claim, largest),
    };
    fits.then_some(result).ok_or_else(|| SEARCH.to_owned())
}

fn is_text(expression: &IdedExpr) -> bool {
    matches!(expression.expr, Expr::Literal(LiteralValue::String(_)))
}
