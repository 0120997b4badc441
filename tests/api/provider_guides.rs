//! The guides to issuers of tokens in `docs/providers`: each config, asked with tokens and keys of the shape that the
//! provider documents.

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value, json};
use toml::Table;

use crate::{
    guides::{Guide, check_and_explain, section},
    helpers::{Answer, Gate, SECRET, TestApp, Token},
    key_shapes::{
        as_usual, beside_certificates, with_an_encryption_key, with_certificates, with_operations,
        without_algorithms,
    },
    service::{Reply, Service},
    signing::{SigningKey, set},
    tokens::base64,
};

/// A provider, and what its guide does not show.
struct Provider {
    /// The heading of the guide.
    heading: &'static str,
    identity: &'static str,
    algorithm: Algorithm,
    /// Changes a key set to the one that the provider publishes.
    publishes: fn(&mut Value),
    /// What a token of another tenant says instead.
    other_tenant: &'static [(&'static str, &'static str)],
    /// The claim that lists the workspaces.
    membership: &'static str,
}

impl Provider {
    /// A workspace of the user in the guide.
    fn workspace(&self) -> &'static str {
        match self.membership {
            "hd" => "example.com",
            _ => "ws_1",
        }
    }
}

const PROVIDERS: [Provider; 11] = [
    Provider {
        heading: "Auth0",
        identity: "auth0",
        algorithm: Algorithm::RS256,
        publishes: with_certificates,
        other_tenant: &[("iss", "https://other.eu.auth0.com/")],
        membership: "https://app.example.com/workspaces",
    },
    Provider {
        heading: "Clerk",
        identity: "clerk",
        algorithm: Algorithm::RS256,
        publishes: as_usual,
        other_tenant: &[("iss", "https://clerk.other.example.com")],
        membership: "/o",
    },
    Provider {
        heading: "Supabase",
        identity: "supabase",
        algorithm: Algorithm::ES256,
        publishes: with_operations,
        other_tenant: &[("iss", "https://other.supabase.co/auth/v1")],
        membership: "/app_metadata/workspaces",
    },
    Provider {
        heading: "Supabase",
        identity: "supabase-legacy",
        algorithm: Algorithm::HS256,
        publishes: with_operations,
        other_tenant: &[("iss", "https://other.supabase.co/auth/v1")],
        membership: "/app_metadata/workspaces",
    },
    Provider {
        heading: "Firebase",
        identity: "firebase",
        algorithm: Algorithm::RS256,
        publishes: as_usual,
        other_tenant: &[
            ("iss", "https://securetoken.google.com/other"),
            ("aud", "other"),
        ],
        membership: "workspaces",
    },
    Provider {
        heading: "Keycloak",
        identity: "keycloak",
        algorithm: Algorithm::RS256,
        publishes: with_an_encryption_key,
        other_tenant: &[("iss", "https://id.example.com/realms/other")],
        membership: "groups",
    },
    Provider {
        heading: "Cognito",
        identity: "cognito",
        algorithm: Algorithm::RS256,
        publishes: as_usual,
        other_tenant: &[(
            "iss",
            "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Other",
        )],
        membership: "cognito:groups",
    },
    Provider {
        heading: "Okta",
        identity: "okta",
        algorithm: Algorithm::RS256,
        publishes: as_usual,
        other_tenant: &[("iss", "https://other.okta.com/oauth2/default")],
        membership: "groups",
    },
    Provider {
        heading: "Google",
        identity: "google",
        algorithm: Algorithm::RS256,
        publishes: as_usual,
        other_tenant: &[("hd", "example.net")],
        membership: "hd",
    },
    Provider {
        heading: "Cloudflare Access",
        identity: "access",
        algorithm: Algorithm::RS256,
        publishes: beside_certificates,
        other_tenant: &[("iss", "https://other.cloudflareaccess.com")],
        membership: "/custom/groups",
    },
    Provider {
        heading: "Microsoft Entra ID",
        identity: "microsoft",
        algorithm: Algorithm::RS256,
        publishes: without_algorithms,
        other_tenant: &[
            (
                "iss",
                "https://login.microsoftonline.com/9c8b7a65-4d3e-4c2b-9a10-0f1e2d3c4b5a/v2.0",
            ),
            ("tid", "9c8b7a65-4d3e-4c2b-9a10-0f1e2d3c4b5a"),
        ],
        membership: "roles",
    },
];

/// A provider on this machine, and a gate with the config of its guide.
struct Running {
    provider: &'static Provider,
    service: Service,
    key: SigningKey,
    identity: Table,
    payload: Value,
    gate: TestApp,
}

impl Running {
    async fn start(provider: &'static Provider, guide: &Guide) -> Self {
        // The provider's hosts become paths of a service.
        let service = Service::start();
        let local = |text: &str| to_service(&service, text);
        let config = local(&guide.config);
        let table: Table = config.parse().unwrap();
        let identities = table["identities"].as_table().unwrap();
        let names: Vec<_> = identities.keys().cloned().collect();
        let identity = identities[provider.identity].as_table().unwrap().clone();
        let key = SigningKey::new("one", provider.algorithm);
        if provider.algorithm != Algorithm::HS256 {
            publish(&service, &identity, provider, &key);
        }
        let gate = Gate::accepting(names)
            .include(&config)
            .chain(["signed-in", "member"])
            .secret("SUPABASE_JWT_SECRET", SECRET)
            .start()
            .await;
        Self {
            provider,
            payload: serde_json::from_str(&local(&guide.payload)).unwrap(),
            service,
            key,
            identity,
            gate,
        }
    }

    fn names(&self, key: &str) -> Vec<String> {
        let claims = self.identity.get(key).and_then(toml::Value::as_table);
        claims.map_or(Vec::new(), |claims| claims.keys().cloned().collect())
    }

    fn sign(&self, payload: &Value) -> String {
        let mut token = Token::of("replaced").without("sub").without("aud");
        token = token.without("workspaces");
        for (claim, value) in payload.as_object().unwrap() {
            token = token.with(claim, value.clone());
        }
        match self.provider.algorithm {
            Algorithm::HS256 => token.sign(),
            _ => self.key.sign(&token),
        }
    }

    /// Asks with the token in each place that the guide names; the answers agree.
    async fn ask(&self, payload: &Value, body: &Value) -> Answer {
        let token = self.sign(payload);
        let places = match self.identity.get("from") {
            Some(from) => from.as_array().unwrap().clone(),
            None => vec![toml::Value::from("bearer")],
        };
        let mut last: Option<Answer> = None;
        for place in &places {
            let request = self.gate.ask();
            let request = match place.as_str().unwrap().split_once(':') {
                None => request.bearer(&token),
                Some(("header", name)) => request.header(name, &token),
                Some((_, name)) => match name.strip_suffix('*') {
                    Some(name) => request.header("cookie", &supabase_cookies(name, &token)),
                    None => request.header("cookie", &format!("{name}={token}")),
                },
            };
            let answer = request.json(body).await;
            if let Some(last) = &last {
                assert_eq!(
                    (last.status, last.code()),
                    (answer.status, answer.code()),
                    "{place}"
                );
            }
            last = Some(answer);
        }
        last.unwrap()
    }

    async fn assert(&self, what: &str, payload: &Value, status: u16, code: &str) {
        let body = json!({ "workspace": self.provider.workspace() });
        let answer = self.ask(payload, &body).await;
        let found = (answer.status.as_u16(), answer.code());
        let identity = self.provider.identity;
        assert_eq!(found, (status, code), "{identity}: {what}");
    }
}

fn to_service(service: &Service, text: &str) -> String {
    text.replace(
        "http://keycloak:8080/",
        &format!("{}/keycloak/", service.url),
    )
    .replace("https://", &format!("{}/", service.url))
}

/// The session of Supabase's library, in two chunks.
fn supabase_cookies(name: &str, token: &str) -> String {
    let session = json!({ "access_token": token, "token_type": "bearer", "refresh_token": "r" });
    let value = format!("base64-{}", base64(session.to_string().as_bytes()));
    let (first, second) = value.split_at(value.len() / 2);
    format!("{name}.0={first}; {name}.1={second}")
}

/// Publishes the key at the URL that the guide's config names.
fn publish(service: &Service, identity: &Table, provider: &Provider, key: &SigningKey) {
    let path = |url: &str| url.strip_prefix(&service.url).unwrap().to_owned();
    let at = match identity.get("jwks_url") {
        Some(url) => path(url.as_str().unwrap()),
        None => {
            assert_eq!(identity["discovery"].as_bool(), Some(true));
            let issuer = identity["issuer"].as_str().unwrap();
            let keys = "/published-keys";
            let metadata =
                json!({ "issuer": issuer, "jwks_uri": format!("{}{keys}", service.url) });
            let document = "/.well-known/openid-configuration";
            let document = format!("{}{document}", path(issuer).trim_end_matches('/'));
            service.answer(&document, Reply::json(&metadata));
            keys.to_owned()
        }
    };
    let mut set = set(&[key]);
    (provider.publishes)(&mut set);
    let set = to_service(service, &set.to_string());
    service.answer(&at, Reply::text(&set));
}

/// The object that holds a claim, which is named literally or by a JSON Pointer, and its name there.
fn holder<'a>(payload: &'a mut Value, claim: &str) -> (&'a mut Map<String, Value>, String) {
    let (parent, name) = match claim.starts_with('/') {
        true => claim.rsplit_once('/').unwrap(),
        false => ("", claim),
    };
    let parent = payload.pointer_mut(parent).unwrap();
    (parent.as_object_mut().unwrap(), name.to_owned())
}

fn with(payload: &Value, claim: &str, value: impl Into<Value>) -> Value {
    let mut payload = payload.clone();
    let (object, name) = holder(&mut payload, claim);
    object.insert(name, value.into());
    payload
}

fn without(payload: &Value, claim: &str) -> Value {
    let mut payload = payload.clone();
    let (object, name) = holder(&mut payload, claim);
    assert!(object.remove(&name).is_some(), "there is no {claim}");
    payload
}

#[actix_web::test]
async fn each_guide_accepts_the_tokens_of_its_provider_and_no_others() {
    for provider in &PROVIDERS {
        let running = Running::start(provider, &section(provider.heading)).await;
        let good = &running.payload;
        running.assert("good", good, 200, "").await;
        let expired = with(good, "exp", 1_700_000_000);
        running
            .assert("expired", &expired, 401, "credentials_expired")
            .await;
        let tenant = provider
            .other_tenant
            .iter()
            .fold(good.clone(), |payload, (claim, value)| {
                with(&payload, claim, to_service(&running.service, value))
            });
        running
            .assert("another tenant", &tenant, 401, "invalid_credentials")
            .await;

        let mut required = running.names("required_claims");
        required.push("iss".to_owned());
        if running.identity.contains_key("audience") {
            required.push("aud".to_owned());
        }
        if running.identity.contains_key("required_scopes") {
            required.push("scp".to_owned());
        }
        for claim in &required {
            for other in [with(good, claim, "another"), without(good, claim)] {
                running
                    .assert(claim, &other, 401, "invalid_credentials")
                    .await;
            }
        }
        for claim in &running.names("allowed_claims") {
            let other = with(good, claim, "another");
            running
                .assert(claim, &other, 401, "invalid_credentials")
                .await;
            running.assert(claim, &without(good, claim), 200, "").await;
        }

        let membership = to_service(&running.service, provider.membership);
        let stranger = running.ask(good, &json!({ "workspace": "ws_9" })).await;
        stranger.assert_error(403, "workspace_forbidden");
        if !required.contains(&membership) {
            let nowhere = without(good, &membership);
            running
                .assert("no membership", &nowhere, 403, "workspace_forbidden")
                .await;
        }
    }
}

#[test]
fn check_and_explain_accept_the_guide_to_each_provider() {
    for provider in &PROVIDERS {
        let guide = section(provider.heading);
        let payload: Value = serde_json::from_str(&guide.payload).unwrap();
        check_and_explain(
            &guide,
            provider.workspace(),
            &payload,
            &["SUPABASE_JWT_SECRET"],
        );
    }
}
