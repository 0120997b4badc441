//! Rules in CEL, the Common Expression Language: the policy of kind `expression`, and `when` of every policy.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, Program, Value,
    common::ast::{EntryExpr, Expr, IdedExpr},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    Clock, Deciding, Decision, Denial, Evaluating, Facts, Policy, UploadRequest, Verdict,
    resolver::{self, Resolver},
    settings::OnFailure,
};

/// The longest expression, in bytes.
const MAX_BYTES: usize = 4096;

/// How many macros that walk a list (`all`, `exists`, `map`, `filter`) may stand within each other: a token's
/// claims may hold some thousand entries, and each level multiplies.
const MAX_NESTED_WALKS: usize = 1;

/// How deep an expression may be nested: each level takes some of the stack.
const MAX_DEPTH: usize = 40;
const TOO_DEEP: &str = "is nested deeper than 40 levels";
const PARSER_STACK_BYTES: usize = 64 << 20;

/// What an expression may speak of.
const VARIABLES: [&str; 3] = ["request", "subject", "workspace"];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// What every evaluation is an inner scope of: nothing is made, and no reference counted, for each.
static ROOT: LazyLock<Context<'static, 'static>> =
    LazyLock::new(|| Context::with_env(ENVIRONMENT.clone()));

/// Settings of `kind = "expression"`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpressionSettings {
    /// A CEL expression; anything but `true` denies.
    pub allow: Expression,
    /// What happens when it cannot be evaluated.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// A CEL expression that was compiled and checked.
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

struct Compiled {
    text: String,
    program: Program,
    variables: BTreeMap<&'static str, Reads>,
}

/// What an expression reads of a fact: all of it, or some of its fields. A token may have many claims, and an
/// expression mostly wants one.
#[derive(Debug)]
pub(crate) enum Reads {
    /// All of it.
    All,
    /// These fields.
    Fields(BTreeMap<String, Self>),
}

impl Reads {
    /// What is read of a field, if anything is.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::All => Some(&Self::All),
            Self::Fields(fields) => fields.get(name),
        }
    }

    /// Adds the field at the end of `path`.
    fn add(&mut self, path: &[&str]) {
        match (&mut *self, path) {
            (Self::All, _) => {}
            (_, []) => *self = Self::All,
            (Self::Fields(fields), [field, rest @ ..]) => {
                let none = || Self::Fields(BTreeMap::new());
                let field = fields.entry((*field).to_owned()).or_insert_with(none);
                field.add(rest);
            }
        }
    }
}

/// Why an expression has no value: a fact that is missing, a type that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the expression cannot be evaluated: {0}")]
pub struct EvaluationError(String);

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where in its text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("is longer than {MAX_BYTES} bytes"));
        }
        if is_nested_too_deep(text) {
            return Err(TOO_DEEP.to_owned());
        }
        // On a thread with room for whatever the parser makes of it; a panic of its is a fault of the text.
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
            let error = errors.errors.first();
            error.map_or_else(
                || "cannot be parsed".to_owned(),
                |error| {
                    let (line, column) = error.pos;
                    format!("line {line}, column {column} of it: {}", error.msg)
                },
            )
        })?;
        let mut check = Check::default();
        check.visit(program.expression(), &mut Vec::new(), 0)?;
        Ok(Self(Arc::new(Compiled {
            text,
            variables: check.variables,
            program,
        })))
    }

    fn is_true(
        &self,
        request: &UploadRequest,
        known: &Facts,
        clock: &dyn Clock,
    ) -> Result<bool, EvaluationError> {
        let Compiled {
            program, variables, ..
        } = &*self.0;
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            let facts = Resolver::new(request, known, clock, variables);
            let root: &Context<'_, '_> = &ROOT;
            let mut context = root.new_inner_scope();
            context.set_variable_resolver(&facts);
            program.execute(&context)
        }));
        match evaluated {
            Ok(Ok(value)) => Ok(value == Value::Bool(true)),
            Ok(Err(error)) => Err(EvaluationError(error.to_string())),
            Err(_) => Err(EvaluationError("it panicked".to_owned())),
        }
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
            "description": "A CEL expression over subject, workspace and request",
            "maxLength": MAX_BYTES,
        })
    }
}

/// What an expression speaks of, and how much it walks.
#[derive(Default)]
struct Check {
    variables: BTreeMap<&'static str, Reads>,
    depth: usize,
}

/// Whether brackets, or signs before a value, are nested deeper than the parser is to be asked to go.
fn is_nested_too_deep(text: &str) -> bool {
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

impl Check {
    fn visit<'e>(
        &mut self,
        expression: &'e IdedExpr,
        bound: &mut Vec<&'e str>,
        walks: usize,
    ) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        let visited = self.parts(expression, bound, walks);
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
                    return Err("walks a list for each entry of another one, \
                                which may take long"
                        .to_owned());
                }
                self.visit(&walk.iter_range, bound, walks)?;
                self.visit(&walk.accu_init, bound, walks)?;
                let before = bound.len();
                bound.extend([walk.iter_var.as_str(), walk.accu_var.as_str()]);
                bound.extend(walk.iter_var2.as_deref());
                for part in [&walk.loop_cond, &walk.loop_step, &walk.result] {
                    self.visit(part, bound, walks + 1)?;
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

    /// Notes that a variable, or what is at the end of a path of its fields, is read.
    fn variable(&mut self, name: &str, path: &[&str], bound: &[&str]) -> Result<(), String> {
        if bound.contains(&name) {
            return Ok(());
        }
        match VARIABLES.iter().find(|variable| **variable == name) {
            Some(variable) => {
                resolver::check_path(variable, path)?;
                let reads = self.variables.entry(variable);
                reads
                    .or_insert_with(|| Reads::Fields(BTreeMap::new()))
                    .add(path);
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

/// An expression with the clock that tells it `request.time`.
#[derive(Clone)]
pub struct Condition {
    expression: Expression,
    clock: Arc<dyn Clock>,
}

impl Condition {
    /// Puts the two together.
    #[must_use]
    pub fn new(expression: Expression, clock: Arc<dyn Clock>) -> Self {
        Self { expression, clock }
    }

    /// Whether it is `true` of these facts.
    ///
    /// # Errors
    ///
    /// Why it has no value.
    pub fn holds(&self, request: &UploadRequest, known: &Facts) -> Result<bool, EvaluationError> {
        self.expression.is_true(request, known, &*self.clock)
    }
}

/// Denies unless its expression is true.
pub struct ExpressionPolicy(Condition);

impl ExpressionPolicy {
    /// Builds the policy.
    #[must_use]
    pub fn new(settings: &ExpressionSettings, clock: Arc<dyn Clock>) -> Self {
        Self(Condition::new(settings.allow.clone(), clock))
    }
}

impl Policy for ExpressionPolicy {
    fn decide<'a>(&'a self, evaluating: Evaluating<'a>) -> Deciding<'a> {
        let Evaluating { request, facts, .. } = evaluating;
        let value = self.0.holds(request, facts);
        Box::pin(async move {
            Ok(Decision::from(if value? {
                Verdict::Allow
            } else {
                let reason = "the expression is not true".to_owned();
                Verdict::Deny(Denial::RuleForbidden(reason))
            }))
        })
    }
}
