//! The chain alone: four policies, warm keys, a verified HS256 token, and a store that answers at once.
//! `cargo bench --bench chain`

use std::sync::Arc;

use actix_web::test::TestRequest;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::{
    FutureExt as _,
    future::{LocalBoxFuture, ready},
};
use imgwire_gate::{
    http_client::{HttpClient, Outbound, tls_config},
    identity::{ClientAddress, CrossSite, HttpCredentials, Identities},
    settings::{self, Settings},
};
use jsonwebtoken::{EncodingKey, Header};
use policies::{
    Chain, Clock, Counter, Decider, Fault, Hold, Link, Lookup, Memberships, Outcome, Pass,
    PolicyName, QuotaStore, RemoteSettings, Reservation, Reserving, RoutePath, Settling, StoreName,
    SystemClock, UploadRequest, Window, WorkspaceMemberSettings, settings::Ports,
};
use serde_json::json;

const SECRET: &str = "a secret of at least thirty-two bytes";

/// A store without a store: everything is granted and nothing kept.
struct Nowhere;

struct Nothing;

impl QuotaStore for Nowhere {
    fn reserve(&self, _: Counter, window: Window, _: u64) -> Reserving<'_> {
        let hold = Box::new(Nothing);
        Box::pin(ready(Ok(Reservation::Granted {
            hold,
            used: 1,
            window,
        })))
    }

    fn used(&self, _: Counter, window: Window) -> LocalBoxFuture<'_, Result<(u64, Window), Fault>> {
        Box::pin(ready(Ok((0, window))))
    }

    fn give_back(&self, _: Counter, _: Window) -> LocalBoxFuture<'_, Result<(), Fault>> {
        Box::pin(ready(Ok(())))
    }
}

impl Ports for Nowhere {
    fn store(&self, _: &StoreName) -> Arc<dyn QuotaStore> {
        Arc::new(Self)
    }

    fn memberships(
        &self,
        _: &PolicyName,
        _: Lookup<'_>,
        _: &WorkspaceMemberSettings,
    ) -> Arc<dyn Memberships> {
        unreachable!("the claim tells")
    }

    fn decider(&self, _: &PolicyName, _: &RemoteSettings) -> Arc<dyn Decider> {
        unreachable!("no service decides")
    }
}

impl Hold for Nothing {
    fn commit(&mut self) -> Settling<'_> {
        Box::pin(ready(Ok(())))
    }

    fn release(self: Box<Self>) -> Settling<'static> {
        Box::pin(ready(Ok(())))
    }
}

fn settings() -> Settings {
    let config = r#"
        [imgwire]
        api_key = { env = "KEY" }
        [stores.main]
        url = "sqlite:nowhere.db"
        [identities.app]
        kind = "jwt"
        algorithms = ["HS256"]
        secret = { env = "SECRET" }
        audience = ["imgwire-gate"]
        [policies.signed-in]
        kind = "signed_in"
        accept = ["app"]
        [policies.member]
        kind = "workspace_member"
        claim = "workspaces"
        roles = ["owner", "editor"]
        [policies.burst]
        kind = "rate_limit"
        per = ["user"]
        limit = 4000000000
        period = "1s"
        [policies.daily]
        kind = "quota"
        per = ["workspace"]
        limit = { claim = "plan", values = { free = 20, pro = 1000 }, default = 20 }
        window = "day"
        timezone = "Europe/Berlin"
        store = "main"
        [[routes]]
        policies = ["signed-in", "member", "burst", "daily"]
    "#;
    let environment = |name: &str| {
        let secret = if name == "SECRET" { SECRET } else { "sk_bench" };
        Some(secret.to_owned())
    };
    settings::load("bench.toml", config, &environment).expect("the config is valid")
}

fn token() -> String {
    let claims = json!({
        "sub": "user_1",
        "aud": "imgwire-gate",
        "exp": 4_000_000_000_u64,
        "workspaces": [{ "id": "ws_2", "role": "viewer" }, { "id": "ws_1", "role": "editor" }],
        "plan": "pro",
    });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("the claims can be encoded")
}

fn chain(criterion: &mut Criterion) {
    let settings = settings();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let links = settings.policies.iter().map(|(name, common, kind)| Link {
        name: name.clone(),
        kind: kind.name(),
        mode: common.mode,
        on_failure: kind.on_failure(),
        when: None,
        policy: kind.build(name, &clock, &Nowhere),
    });
    let mut links: Vec<Link> = links.collect();
    // The order of the route.
    let order = &settings.routes[0].policies;
    links.sort_by_key(|link| order.iter().position(|name| *name == link.name));
    let chain = Chain::new(links);
    let outbound = Outbound {
        http: HttpClient::new(tls_config(&settings.authorities)),
        clock: clock.clone(),
        metrics: Arc::default(),
    };
    let identities = Arc::new(Identities::new(
        &settings.identities,
        None,
        CrossSite::new(&[]),
        &ClientAddress::new(&[]),
        &outbound,
        None,
    ));
    let http = TestRequest::post()
        .insert_header(("authorization", format!("Bearer {}", token())))
        .to_http_request();
    let route = RoutePath::parse("/api/imgwire/upload-token").expect("the path is valid");

    criterion.bench_function("four policies", |bencher| {
        bencher.iter(|| {
            let request = UploadRequest {
                route: route.clone(),
                workspace: Some(policies::WorkspaceId::parse("ws_1").expect("the id is valid")),
                purpose: None,
                file: None,
                ip: [192, 0, 2, 1].into(),
                credentials: Box::new(HttpCredentials {
                    request: http.clone(),
                    identities: identities.clone(),
                }),
            };
            let evaluation = chain.evaluate(&request, Pass::Issue).now_or_never();
            let outcome = evaluation.expect("nothing waits").outcome;
            assert!(matches!(outcome, Outcome::Allowed(_)));
        });
    });
}

criterion_group!(benches, chain);
criterion_main!(benches);
