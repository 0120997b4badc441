//! Services that decide: the port of the kind `remote`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    BoxFuture, Clock, Facts, UploadRequest,
    engine::{fact_list, fact_ref::Group},
};

/// The format of the requests to a service and of its responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The request is the facts. The status of the response decides: 2xx allows, 403 denies.
    #[default]
    Plain,
    /// The Data API of Open Policy Agent: the request is `{"input": facts}`. The response `{"result": true}` allows.
    /// `false` or no result denies.
    Opa,
}

/// A client of a service that decides.
pub trait Decider: Send + Sync {
    /// Asks the service whether it allows a request with these facts.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if the service fails or its response is invalid.
    fn allows<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, bool>;
}

/// The facts that a service decides on. They are serialized as one JSON object. A fact without a value is left out.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The request of the client.
    pub request: &'a UploadRequest,
    /// What the earlier policies established.
    pub facts: &'a Facts,
    /// The source of `request.time`.
    pub clock: &'a dyn Clock,
}

impl Serialize for Question<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list(Some(self.clock), |facts| facts.serialize(serializer))
    }
}

impl Question<'_> {
    /// A key for the cache of responses: every fact except the time, as JSON.
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
