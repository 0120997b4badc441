//! The names of types and functions that expressions may use: those of standard CEL, `as_list` and `split`.

use std::sync::{Arc, LazyLock};

use cel::{
    Context, Env, ExecutionError, Program,
    common::{
        types::{CelList, CelString, DYN_TYPE, LIST_TYPE, STRING_TYPE},
        value::{CowVal, Val},
    },
};

use crate::engine::long_list::MAX_LIST;

pub(crate) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let declared = [
        env.add_overload("as_list", "as_list", vec![DYN_TYPE], as_list),
        env.add_overload("split", "split", vec![STRING_TYPE, STRING_TYPE], split),
        env.add_member_overload("split", "text_split", STRING_TYPE, vec![STRING_TYPE], split),
    ];
    for result in declared {
        result.expect("standard CEL has no such function");
    }
    Arc::new(env)
});

/// The outer scope of all evaluations. It is shared, so that an evaluation builds nothing and counts no references.
pub(crate) static ROOT: LazyLock<Context<'static, 'static>> =
    LazyLock::new(|| Context::with_env(ENVIRONMENT.clone()));

/// Whether `name` is a type. Types are also values: `type(x) == string`.
pub(crate) fn is_type(name: &str) -> bool {
    ENVIRONMENT.types().find_type(name).is_some()
}

/// Returns the name of a function that the expression calls and that does not exist. Such an expression never has a
/// value.
pub(crate) fn unknown_function(program: &Program) -> Option<String> {
    let references = program.references();
    // Operators are functions, too. Their names do not start with a letter.
    let is_name = |name: &&str| name.starts_with(|first: char| first.is_ascii_alphabetic());
    let mut names = references.functions().into_iter().filter(is_name);
    names
        .find(|name| {
            // A function that exists rejects these calls in another way.
            [format!("{name}()"), format!("''.{name}()")].iter().all(|call| {
                let called = ENVIRONMENT.compile(call).map(|call| call.execute(&ROOT));
                matches!(called, Ok(Err(ExecutionError::UndeclaredReference(unknown))) if *unknown == **name)
            })
        })
        .map(str::to_owned)
}

type Evaluated<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// Returns a list as it is, and any other value as a list of one.
fn as_list<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Evaluated<'b, 'v> {
    let value = arguments.into_iter().next();
    let value = value.ok_or_else(|| ExecutionError::invalid_argument_count(1, 0))?;
    if *value.get_type() == LIST_TYPE {
        return Ok(value);
    }
    Ok(CowVal::owned(CelList::from(vec![value.into_owned()])))
}

/// Splits a text. An empty text is one empty entry.
fn split<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Evaluated<'b, 'v> {
    let text = |index: usize| arguments.get(index)?.downcast_ref::<CelString<'_>>();
    let (Some(text), Some(separator)) = (text(0), text(1)) else {
        return Err(ExecutionError::function_error(
            "split",
            "it takes two texts",
        ));
    };
    if separator.inner().is_empty() {
        return Err(ExecutionError::function_error(
            "split",
            "the separator is empty",
        ));
    }
    let parts = text.inner().split(separator.inner());
    // One more than allowed shows that there are too many.
    let parts: Vec<Box<dyn Val + 'v>> = parts
        .take(MAX_LIST + 1)
        .map(|part| Box::new(CelString::from(part.to_owned())) as _)
        .collect();
    if parts.len() > MAX_LIST {
        return Err(ExecutionError::function_error(
            "split",
            "the text has too many entries",
        ));
    }
    Ok(CowVal::owned(CelList::from(parts)))
}
