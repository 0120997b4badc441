//! What a macro may do for each entry of a list: nothing whose cost grows with another fact.
//!
//! Claims may have thousands of entries, and work on one claim for each entry of another multiplies them. So within a
//! macro, an expression may compare a claim with something shorter, test for its presence, and select a member of it.
//! It must not search, iterate over, copy, join or match a claim.

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

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

pub(crate) const NESTED_WALK: &str =
    "iterates over a list for each entry of another list, which may be slow";

pub(crate) const SEARCH: &str = "searches, copies or compares whole claims for each entry of a list, which may be slow; \
                      do that outside of the macro, or compare the entry itself";

const PATTERN: &str = "uses a fact as the pattern of `matches` for each entry of a list; write the pattern as a string";

/// The size of the result of a function or an operator with arguments of these sizes, for each entry of a list. The
/// error says what may be slow.
pub(crate) fn call(name: &str, arguments: &[&IdedExpr], sizes: &[Size]) -> Result<Size, String> {
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
