//! `[policies.<name>]`: the registered kinds, and the policies of a config.

use policies::{
    ConfiguredPolicy, Dimension, Expression, Findings, OnFailure, PolicyKind, PolicyName,
    PolicyRegistry, Requirements, ServiceCall, StoreName, StoreUse,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use secrecy::SecretString;
use serde_json::{Value as Json, json};
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::{routes::RouteSettings, stores::Stores};
use crate::{
    config::{
        CommonSettings, Environment, ServiceUrl,
        document::{Reader, Value, join, within},
        fault::unknown,
        named::{Named, take_kind},
        secret,
        service_url::UrlTemplate,
        shape::with_definitions,
    },
    gate::route_paths::RouteAction,
    identities::{ChainIdentities, Profiles},
};

#[derive(Clone, Debug)]
pub struct PolicyKinds(Vec<Kind>);

#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    can_fail: bool,
    read: fn(&mut Reader, &str, Value<'_>) -> Option<Box<dyn ConfiguredPolicy>>,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Default for PolicyKinds {
    /// The gate's own kinds.
    fn default() -> Self {
        let mut kinds = Self(Vec::new());
        policies::add_built_in_kinds(&mut kinds);
        kinds
    }
}

impl PolicyRegistry for PolicyKinds {
    fn add<K: PolicyKind>(&mut self) {
        let name = K::NAME;
        let is_new = self.names().all(|other| other != name);
        assert!(is_new, "there is already a kind `{name}`");
        self.0.push(Kind {
            name,
            can_fail: K::CAN_FAIL,
            read: |reader, path, value| Some(Box::new(reader.table::<K>(path, value)?)),
            schema: K::json_schema,
        });
    }
}

impl PolicyKinds {
    fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|kind| kind.name)
    }

    /// The schema of each kind, with the keys that all kinds have.
    pub(super) fn schema(&self, generator: &mut SchemaGenerator) -> Vec<Json> {
        let common = CommonSettings::json_schema(generator);
        let kinds = self.0.iter();
        kinds
            .map(|kind| kind.full_schema(&common, generator))
            .collect()
    }
}

impl Kind {
    /// The schema of a table without its `kind`.
    fn keys(&self) -> Json {
        let mut schema = with_definitions(|generator| {
            let common = CommonSettings::json_schema(generator);
            Schema::try_from(self.full_schema(&common, generator)).unwrap_or_default()
        });
        if let Some(required) = schema["required"].as_array_mut() {
            required.retain(|key| key != "kind");
        }
        schema
    }

    fn full_schema(&self, common: &Schema, generator: &mut SchemaGenerator) -> Json {
        let mut schema = (self.schema)(generator).to_value();
        let shared = common.get("properties").and_then(Json::as_object);
        let shared = shared.into_iter().flatten();
        for (key, value) in shared.filter(|(key, _)| self.can_fail || *key != ON_FAILURE) {
            schema["properties"][key] = value.clone();
        }
        schema["properties"]["kind"] = json!({ "type": "string", "const": self.name });
        match &mut schema["required"] {
            Json::Array(required) => required.push(json!("kind")),
            none => *none = json!(["kind"]),
        }
        schema
    }
}

const ON_FAILURE: &str = "on_failure";

#[derive(Debug)]
pub struct PolicySettings {
    /// The keys that all kinds have.
    pub common: CommonSettings,
    /// The keys of its own kind.
    pub kind: Box<dyn ConfiguredPolicy>,
    /// What the policy uses, reads and provides.
    pub requirements: Requirements,
    /// The bearer token for calls to the service that the policy names.
    pub token: Option<SecretString>,
}

impl PolicySettings {
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        self.requirements
            .on_failure
            .unwrap_or(self.common.on_failure)
    }

    /// Whether the policy counts when an upload is recorded.
    #[must_use]
    pub fn counts_uploads(&self) -> bool {
        let store = self.requirements.store.as_ref();
        store.is_some_and(|(_, used)| *used == StoreUse::Uploads)
    }

    /// Whether the policy calls a service or queries a database.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.requirements.service.is_some() || self.requirements.query.is_some()
    }
}

pub(super) fn read(
    reader: &mut Reader,
    kinds: &PolicyKinds,
    environment: Environment<'_>,
    path: &str,
    mut value: Value<'_>,
) -> Option<PolicySettings> {
    let name = take_kind(reader, path, &mut value, "policy kind", kinds.names())?;
    let known = kinds.0.iter().find(|kind| kind.name == name);
    if let Some(known) = known {
        // All keys at once, so that each may be meant by a misspelt one.
        reader.check_shape(path, &known.keys(), &mut value);
    }
    let common: Option<CommonSettings> = {
        let can_fail = known.is_none_or(|kind| kind.can_fail);
        let common = take_common(&mut value, can_fail);
        reader.table(path, common)
    };
    let Some(known) = known else {
        let message = unknown("policy kind", &name, kinds.names());
        reader.fault(join(path, "kind"), message);
        return None;
    };
    let kind = (known.read)(reader, path, value)?;
    let requirements = kind.requirements();
    let service = requirements.service.as_ref();
    let token = service.and_then(|service| service.token.as_ref());
    // A secret that cannot be loaded is a fault, but must not hide the faults of chains.
    let token =
        token.and_then(|source| secret::read(reader, environment, &join(path, "token"), source, 1));
    Some(PolicySettings {
        common: common?,
        kind,
        requirements,
        token,
    })
}

/// Moves the keys that all kinds have out of a policy's table.
fn take_common<'t>(value: &mut Value<'t>, can_fail: bool) -> Value<'t> {
    let span = value.span();
    let mut common = DeTable::new();
    if let DeValue::Table(table) = value.get_mut() {
        let keys = ["mode", "message", "when"].into_iter();
        for name in keys.chain(can_fail.then_some(ON_FAILURE)) {
            if let Some((key, entry)) = table.remove_entry(name) {
                common.insert(key, entry);
            }
        }
    }
    Spanned::new(span, DeValue::Table(common))
}

pub(super) type Policies = [Named<PolicyName, PolicySettings>];

/// Checks each policy: its keys against each other, and the names in it.
pub(super) fn check(
    reader: &mut Reader,
    policies: &Policies,
    stores: &Stores,
    identities: &Profiles<'_>,
) {
    for (name, policy) in policies {
        let Some(PolicySettings {
            kind,
            requirements,
            common,
            ..
        }) = policy
        else {
            continue;
        };
        let path = format!("policies.{name}");
        let message = match common.when.as_ref().and_then(Expression::constant) {
            Some(true) => Some("is true for every request; remove it"),
            Some(false) => Some(
                "is false for every request, so the policy never runs; remove the policy, or correct this",
            ),
            None => None,
        };
        if let Some(message) = message {
            reader.warning(join(&path, "when"), message);
        }
        if let Some(service) = &requirements.service {
            check_service(reader, &path, service);
        }
        // Skip policies that already have a fault.
        if !reader.has_fault(&path) {
            let mut findings = Findings::default();
            kind.check(&mut findings);
            for (key, message) in findings.faults {
                reader.fault(within(&path, key), message);
            }
            for (key, message) in findings.warnings {
                reader.warning(within(&path, key), message);
            }
        }
        if let Some((name, wanted)) = &requirements.store {
            stores.check(reader, &join(&path, "store"), name, *wanted);
        }
        if policy.as_ref().is_some_and(PolicySettings::counts_uploads)
            && common.on_failure == OnFailure::Allow
        {
            let message = "would not help, because the same store records the uploads, and an upload without a record \
                           fails; remove the key";
            reader.fault(join(&path, "on_failure"), message);
        }
        if !requirements.accept.is_empty() {
            identities.check_accept(reader, &join(&path, "accept"), &requirements.accept);
        }
    }
}

/// Whether a policy counts quotas or storage in the store `name`.
pub(super) fn counts_in(policies: &Policies, name: &StoreName) -> bool {
    policies.iter().any(|(_, policy)| {
        let store = policy
            .as_ref()
            .and_then(|policy| policy.requirements.store.as_ref());
        store.is_some_and(|(store, used)| {
            store == name && matches!(used, StoreUse::Quotas | StoreUse::Uploads)
        })
    })
}

fn check_service(reader: &mut Reader, path: &str, service: &ServiceCall) {
    let url = service.endpoint.as_str();
    let is_private = if service.is_template {
        UrlTemplate::parse(url).map(|url| url.is_private())
    } else {
        ServiceUrl::try_from(url.to_owned()).map(|url| url.is_private())
    };
    match is_private {
        Err(message) => reader.fault(join(path, "url"), message),
        Ok(false) if service.token.is_some() && !service.insecure_http => {
            let message = "would be sent over plain http to another machine; use https in `url`, or write `insecure_http = true`";
            reader.fault(join(path, "token"), message);
        }
        Ok(_) => {}
    }
}

pub(super) fn check_chains(
    reader: &mut Reader,
    routes: &[RouteSettings],
    policies: &Policies,
    identities: &Profiles<'_>,
) {
    for route in routes {
        let key = join(&route.place(), "policies");
        check_chain(reader, &key, route, policies);
    }
    warn_about_counting(reader, routes, policies);
    let chains = routes.iter().map(|route| chain_identities(route, policies));
    identities.check_chains(reader, &chains.collect::<Vec<_>>());
}

/// Each policy of a route must exist, be listed once, and come after the policies that it needs.
fn check_chain(reader: &mut Reader, key: &str, route: &RouteSettings, policies: &Policies) {
    let chain = &route.policies;
    if chain.is_empty() {
        let gives = match route.action {
            RouteAction::Token => "gives tokens to everyone",
            RouteAction::Upload => "lets everyone upload",
        };
        let message =
            format!("must name at least one policy, because a route without policies {gives}");
        reader.fault(key, message);
    }
    reader.names(key, chain, |_| None);
    let mut provided = Vec::new();
    // The purposes that all policies so far allow; `None` if any.
    let mut purposes = route.purpose.clone().map(|purpose| vec![purpose]);
    for (index, name) in chain.iter().enumerate() {
        let place = format!("{key}[{index}]");
        // A policy that could not be read may provide any fact.
        let Some(policy) = find(policies, name) else {
            return;
        };
        let requirements = &policy.requirements;
        if policy.common.always_enforces()
            && let Some(allowed) = &requirements.purposes
        {
            let earlier = purposes.get_or_insert_with(|| allowed.clone());
            let had_any = !earlier.is_empty();
            earlier.retain(|purpose| allowed.contains(purpose));
            if had_any && earlier.is_empty() {
                let message = format!(
                    "`{name}` allows none of the purposes that the route's `purpose` or an earlier policy allows, so no \
                     request would pass"
                );
                reader.fault(&place, message);
            }
        }
        let per = requirements.per.as_ref();
        if per.is_some_and(|per| per.contains(Dimension::Purpose)) && purposes.is_none() {
            let message = format!(
                "`{name}` counts per purpose, which the client chooses; set `purpose` on the route, or list an \
                 `upload_intent` policy with `purposes` and without `mode` and `when` before it"
            );
            reader.fault(&place, message);
        }
        for fact in &requirements.needs {
            if !provided.contains(fact) {
                let first = fact.provided_by();
                let message = format!("`{name}` needs a policy of kind `{first}` before it");
                reader.fault(&place, message);
            }
        }
        provided.extend(requirements.provides);
    }
}

pub(super) fn find<'a>(policies: &'a Policies, name: &PolicyName) -> Option<&'a PolicySettings> {
    let (_, policy) = policies.iter().find(|(other, _)| other == name)?;
    policy.as_ref()
}

fn chain_identities<'a>(route: &RouteSettings, policies: &'a Policies) -> ChainIdentities<'a> {
    let mut chain = ChainIdentities::default();
    for name in &route.policies {
        let Some(policy) = find(policies, name) else {
            continue;
        };
        let requirements = &policy.requirements;
        let path = format!("policies.{name}.accept");
        chain.accepts.push((path, &requirements.accept));
        let service = requirements.service.as_ref();
        chain.asks_by_url |= service.is_some_and(|service| service.is_template);
    }
    chain
}

/// Warns about policies whose result a later policy counts by, if that may be unintended.
fn warn_about_counting(reader: &mut Reader, routes: &[RouteSettings], policies: &Policies) {
    for (name, policy) in policies {
        let policy = policy.as_ref();
        let warning = policy.and_then(|policy| policy.requirements.if_counted_per_workspace);
        let Some((key, message)) = warning else {
            continue;
        };
        let counts_per_workspace = |name: &PolicyName| {
            let policy = find(policies, name);
            let per = policy.and_then(|policy| policy.requirements.per.as_ref());
            per.is_some_and(|per| per.contains(Dimension::Workspace))
        };
        let is_counted = routes.iter().any(|route| {
            let mut chain = route.policies.iter();
            chain.any(|other| other == name) && chain.any(counts_per_workspace)
        });
        if is_counted {
            reader.warning(format!("policies.{name}.{key}"), message);
        }
    }
}
