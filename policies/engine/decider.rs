//! Services that decide.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    BoxFuture, Clock, Facts, UploadRequest,
    engine::{fact_list, fact_ref::Group},
};

/// How a service is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The facts; 2xx allows, 403 denies.
    #[default]
    Plain,
    /// `{"input": facts}` as Open Policy Agent takes it; `{"result": true}` allows, `false` or none denies.
    Opa,
}

/// A service that decides: the port that the gate implements.
pub trait Decider: Send + Sync {
    /// Whether these facts are allowed.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if the service gives no usable answer.
    fn allows<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, bool>;
}

/// The question to a service: the facts of a request.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// What the client requests.
    pub request: &'a UploadRequest,
    /// What the earlier policies established.
    pub facts: &'a Facts,
    /// The source of time.
    pub clock: &'a dyn Clock,
}

/// A fact that is unknown has no key.
impl Serialize for Question<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list(Some(self.clock), |facts| facts.serialize(serializer))
    }
}

impl Question<'_> {
    /// What identifies the question: every fact except the time.
    ///
    /// # Errors
    ///
    /// If the facts cannot be written as JSON.
    pub fn cache_key(&self) -> serde_json::Result<Vec<u8>> {
        self.list(None, |facts| serde_json::to_vec(&facts))
    }

    fn list<T>(&self, clock: Option<&dyn Clock>, read: impl FnOnce(Group<'_>) -> T) -> T {
        fact_list::list(Some(self.request), Some(self.facts), clock, read)
    }
}
