//! Compiled CEL expressions, for the policy of kind `expression` and for `when` of every policy.

use std::{
    borrow::Cow,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use cel::{Context, ExecutionError, Program, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    Clock, Fact, Facts, Reads, UploadRequest,
    engine::{
        cel_environment::{ENVIRONMENT, ROOT, unknown_function},
        expression_check::{Check, TOO_DEEP, is_nested_too_deep},
        expression_syntax::{FUNCTIONS, at_name, syntax_error},
        fact_list,
        fact_values::Variables,
        long_list::MAX_LIST,
    },
    excerpt, similar,
};

const MAX_BYTES: usize = 4096;

const PARSER_STACK_BYTES: usize = 64 << 20;

/// A CEL expression that was compiled and checked.
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

struct Compiled {
    text: String,
    program: Program,
    check: Check,
}

/// Why an expression is neither true nor false. `Display` is one line with the names of facts, keys and types. It does
/// not show values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// A fact is missing, or a value has the wrong type.
    #[error("the expression cannot be evaluated: {0}")]
    NoValue(String),
    /// The value of the expression is not a boolean.
    #[error("the expression must be true or false, but its type is {0}")]
    NotBoolean(String),
    /// The value of the expression is not a string, a number or a boolean.
    #[error("the expression must yield a string, a number or a boolean, but its type is {0}")]
    NotScalar(String),
    /// The expression iterates over, searches or compares a list in a claim that is too long.
    #[error("the expression uses a list of more than {MAX_LIST} entries")]
    LongList,
}

impl From<&ExecutionError> for EvaluationError {
    fn from(error: &ExecutionError) -> Self {
        let reason = match error {
            ExecutionError::NoSuchKey(key) | ExecutionError::UndeclaredReference(key) => {
                format!("there is no `{}`", excerpt(key))
            }
            ExecutionError::NoSuchOverload(call) => {
                let types = call.argument_types().join("` and `");
                format!("`{}` does not take `{types}`", call.function())
            }
            ExecutionError::FunctionError { function, .. } => {
                format!("`{function}` does not take this value")
            }
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "it divides by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "a number is too large".to_owned(),
            ExecutionError::IndexOutOfBounds(_) => "a list has no such entry".to_owned(),
            // Other messages would show values.
            _ => "a value is of the wrong type".to_owned(),
        };
        Self::NoValue(reason)
    }
}

impl Expression {
    /// Compiles an expression and checks what it uses.
    ///
    /// # Errors
    ///
    /// Returns what is wrong, and where in the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("is longer than {MAX_BYTES} bytes"));
        }
        if is_nested_too_deep(text) {
            return Err(TOO_DEEP.to_owned());
        }
        // On a thread with enough stack for the parser. If the parser panics, the text is at fault.
        let text = text.to_owned();
        std::thread::Builder::new()
            .stack_size(PARSER_STACK_BYTES)
            .spawn(move || Self::compile(text))
            .map_err(|error| format!("cannot be parsed: {error}"))?
            .join()
            .unwrap_or_else(|_| Err("cannot be parsed".to_owned()))
    }

    fn compile(text: String) -> Result<Self, String> {
        let program = ENVIRONMENT.compile(&text).map_err(|errors| {
            let position = errors.errors.first().map(|error| error.pos);
            syntax_error(
                &text,
                position.map(|(line, column)| (line as usize, column as usize)),
            )
        })?;
        let mut check = Check::default();
        check
            .visit(program.expression(), &[])
            .map_err(|message| at_name(&text, message))?;
        if let Some(name) = unknown_function(&program) {
            let message = match similar(&name, &FUNCTIONS) {
                Some(known) => format!("unknown function `{name}`; did you mean `{known}`?"),
                None => format!(
                    "unknown function `{name}`; write one of CEL, for example `size` or `startsWith`"
                ),
            };
            return Err(at_name(&text, message));
        }
        Ok(Self(Arc::new(Compiled {
            text,
            program,
            check,
        })))
    }

    /// Returns the value of an expression that reads no facts.
    #[must_use]
    pub fn constant(&self) -> Option<bool> {
        let program = &self.0.program;
        if !program.references().variables().is_empty() {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(|| program.execute(&ROOT))) {
            Ok(Ok(Value::Bool(value))) => Some(value),
            _ => None,
        }
    }

    /// Returns the facts of policies that the expression reads.
    pub fn facts(&self) -> impl Iterator<Item = Fact> {
        let variables = &self.0.check.variables;
        let facts = Fact::ALL.into_iter();
        facts.filter(|fact| variables.field(fact.name()).is_some())
    }

    /// Returns what the expression reads of the user's claims.
    #[must_use]
    pub fn claims(&self) -> Reads {
        self.0.check.claims.clone()
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.0.text).finish()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl JsonSchema for Expression {
    fn schema_name() -> Cow<'static, str> {
        "Expression".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "title": "a CEL expression",
            "examples": ["workspace.role == 'owner'"],
            "description": format!("A CEL expression over the facts `{}`", fact_list::paths().join("`, `")),
            "maxLength": MAX_BYTES,
        })
    }
}

/// An expression with a clock, which is the source of its `request.time`.
#[derive(Clone)]
pub struct FactExpression {
    expression: Expression,
    clock: Arc<dyn Clock>,
}

/// A string, a number or a boolean, which an expression yields.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A string.
    String(String),
    /// An integer.
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// A number with a fraction. It is finite.
    Float(f64),
    /// A boolean.
    Bool(bool),
}

impl FactExpression {
    /// Creates an expression that reads `request.time` from `clock`.
    #[must_use]
    pub fn new(expression: Expression, clock: Arc<dyn Clock>) -> Self {
        Self { expression, clock }
    }

    /// Evaluates the expression with these facts.
    ///
    /// # Errors
    ///
    /// If it has no value, or one that is no [`Scalar`].
    pub fn scalar(
        &self,
        request: &UploadRequest,
        known: &Facts,
    ) -> Result<Scalar, EvaluationError> {
        Ok(match self.evaluate(request, known)? {
            Value::String(text) => Scalar::String(text.to_string()),
            Value::Int(number) => Scalar::Int(number),
            Value::UInt(number) => Scalar::UInt(number),
            Value::Float(number) if number.is_finite() => Scalar::Float(number),
            Value::Bool(flag) => Scalar::Bool(flag),
            value => return Err(EvaluationError::NotScalar(value.type_of().to_string())),
        })
    }

    fn evaluate(&self, request: &UploadRequest, known: &Facts) -> Result<Value, EvaluationError> {
        let Compiled { program, check, .. } = &*self.expression.0;
        let (reads, values) = (&check.variables, known.values());
        let execute = || {
            fact_list::list(Some(request), Some(known), Some(&*self.clock), |facts| {
                let variables = Variables {
                    facts,
                    reads,
                    values,
                };
                let root: &Context<'_, '_> = &ROOT;
                let mut context = root.new_inner_scope();
                context.set_variable_resolver(&variables);
                program.execute(&context)
            })
        };
        let evaluated = catch_unwind(AssertUnwindSafe(execute));
        // Regardless of the value: a long list must not make a rule true.
        if values.take_long_list_used() {
            return Err(EvaluationError::LongList);
        }
        match evaluated {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(EvaluationError::from(&error)),
            Err(_) => Err(EvaluationError::NoValue(
                "the evaluation panicked".to_owned(),
            )),
        }
    }
}

/// An expression that is true or false.
#[derive(Clone)]
pub struct Condition(FactExpression);

impl Condition {
    /// Creates a condition that reads `request.time` from `clock`.
    #[must_use]
    pub fn new(expression: Expression, clock: Arc<dyn Clock>) -> Self {
        Self(FactExpression::new(expression, clock))
    }

    /// Evaluates the expression with these facts.
    ///
    /// # Errors
    ///
    /// If the result is neither `true` nor `false`.
    pub fn evaluate(
        &self,
        request: &UploadRequest,
        known: &Facts,
    ) -> Result<bool, EvaluationError> {
        match self.0.evaluate(request, known)? {
            Value::Bool(value) => Ok(value),
            value => Err(EvaluationError::NotBoolean(value.type_of().to_string())),
        }
    }
}
