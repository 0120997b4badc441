//! The names of types and functions that expressions may use: those of standard CEL.

use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, Program};

pub(crate) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

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
