//! What a macro may do for each entry of a list that it walks: nothing that takes longer the larger another fact is.
//!
//! A token's claims may hold thousands of entries, and work on one claim for each entry of another multiplies them. So
//! within a walk, a claim may be compared with something shorter, tested for presence, and asked for a member. It may
//! not be searched, walked, copied, joined or matched.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use crate::expression_check::selected;

/// How large a value may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Size {
    /// As short as the expression itself, an id or a number.
    Short,
    /// The entry that is walked, or made of it: all entries together are as large as the list.
    Entry,
    /// A claim.
    Claim,
}

/// Functions whose result is short, and that take no longer for a large argument.
const CONVERSIONS: [&str; 4] = ["double", "int", "type", "uint"];

const COMPARISONS: [&str; 6] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
];

pub(crate) const NESTED_WALK: &str =
    "walks a list for each entry of another one, which may take long";

const SEARCH: &str = "searches, copies or compares whole claims for each entry of a list, which may take long; \
                      do that outside of the macro, or compare the entry itself";

const PATTERN: &str =
    "takes the pattern of `matches` from a fact for each entry of a list; write the pattern itself";

/// Checks what is evaluated for each entry; `bound` are the variables of the walk.
///
/// # Errors
///
/// What may take long.
pub(crate) fn check(each: &IdedExpr, bound: &[&str]) -> Result<(), String> {
    size(each, bound).map(|_| ())
}

fn size(expression: &IdedExpr, bound: &[&str]) -> Result<Size, String> {
    if let Expr::Select(select) = &expression.expr
        && select.test
    {
        return size(&select.operand, bound).map(|_| Size::Short);
    }
    if let Some((variable, path)) = selected(expression) {
        return Ok(match (variable, path.first()) {
            (variable, _) if bound.contains(&variable) => Size::Entry,
            ("subject", None | Some(&"claims")) => Size::Claim,
            _ => Size::Short,
        });
    }
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) => Ok(Size::Short),
        Expr::Select(select) => size(&select.operand, bound),
        Expr::Call(call) => {
            let parts = call.target.as_deref().into_iter().chain(&call.args);
            let parts: Vec<_> = parts.collect();
            call_size(&call.func_name, &parts, bound)
        }
        Expr::List(list) => no_claims(list.elements.iter(), bound),
        Expr::Map(map) => {
            let entries = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::StructField(field) => [&field.value, &field.value],
                EntryExpr::MapEntry(entry) => [&entry.key, &entry.value],
            });
            no_claims(entries, bound)
        }
        Expr::Comprehension(_) => Err(NESTED_WALK.to_owned()),
    }
}

/// The size of what a function or an operator makes of `parts`.
fn call_size(name: &str, parts: &[&IdedExpr], bound: &[&str]) -> Result<Size, String> {
    let sizes = parts.iter().map(|part| size(part, bound));
    let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
    let is_claim = |size: &Size| *size == Size::Claim;
    let largest = sizes.iter().max().copied().unwrap_or(Size::Short);
    let (fits, result) = match name {
        operators::LOGICAL_AND
        | operators::LOGICAL_OR
        | operators::LOGICAL_NOT
        | operators::NOT_STRICTLY_FALSE => (true, Size::Short),
        operators::CONDITIONAL => (true, sizes.iter().skip(1).max().copied().unwrap_or(largest)),
        // Both take as long as the shorter of the two.
        "startsWith" | "endsWith" => (!sizes.iter().all(is_claim), Size::Short),
        name if COMPARISONS.contains(&name) => (!sizes.iter().all(is_claim), Size::Short),
        operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => (
            !sizes.iter().skip(1).any(is_claim),
            sizes.first().copied().unwrap_or(largest),
        ),
        operators::IN => (!sizes.last().is_some_and(is_claim), Size::Short),
        "matches" if !parts.last().is_some_and(|pattern| is_text(pattern)) => {
            return Err(PATTERN.to_owned());
        }
        name if CONVERSIONS.contains(&name) => (true, Size::Short),
        _ => (largest < Size::Claim, largest),
    };
    fits.then_some(result).ok_or_else(|| SEARCH.to_owned())
}

fn no_claims<'e>(
    parts: impl Iterator<Item = &'e IdedExpr>,
    bound: &[&str],
) -> Result<Size, String> {
    let mut largest = Size::Short;
    for part in parts {
        largest = largest.max(size(part, bound)?);
    }
    if largest == Size::Claim {
        return Err(SEARCH.to_owned());
    }
    Ok(largest)
}

fn is_text(expression: &IdedExpr) -> bool {
    matches!(expression.expr, Expr::Literal(LiteralValue::String(_)))
}
