//! The chain alone, and policies alone, with warm keys, a verified HS256 token and services that answered before.
//! `cargo bench --bench chain`

mod outside;

use std::{net::TcpListener, sync::Arc};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt::System, test::TestRequest, web};
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use imgwire_gate::{
    identities::{
        AppliedLimits, ClientAddress, CrossSite, Identities, RequestCredentials, ServerLimits,
    },
    outbound::cache::CacheCapacity,
    outbound::{HttpClient, Outbound, tls_config},
    server::settings::{self, Settings},
};
use jsonwebtoken::{EncodingKey, Header};
use policies::{
    BuildContext, Chain, Claims, Clock, ConfiguredPolicy, Facts, IdentityName, Link, Outcome, Pass,
    Policy, PolicyInput, PolicyName, Ports, RemoteSettings, RoutePath, Subject, SubjectId,
    SystemClock, UploadRequest, Verdict, WorkspaceId,
};
use serde_json::json;

use self::outside::Outside;

const SECRET: &str = "a secret of at least thirty-two bytes";

fn build(
    kind: &dyn ConfiguredPolicy,
    name: &PolicyName,
    clock: &Arc<dyn Clock>,
    ports: &dyn Ports,
) -> Arc<dyn Policy> {
    let context = BuildContext {
        name,
        clock,
        ports,
        earlier: None,
    };
    kind.build(context).expect("it can be built")
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
        [policies.by-sql]
        kind = "workspace_member"
        store = "main"
        query = "select role, workspace_id from members where user_id = $1 and workspace_id = $2"
        cache = "1h"
        [policies.plan]
        kind = "expression"
        allow = "subject.claims.plan in ['pro', 'team']"
        [policies.owner-or-editor]
        kind = "expression"
        allow = "workspace.role == 'owner' || workspace.role == 'editor'"
        [policies.not-suspended]
        kind = "expression"
        allow = "!has(subject.claims.suspended) || subject.claims.suspended == false"
        [policies.not-banned]
        kind = "expression"
        allow = "!('banned' in subject.claims.groups)"
        [policies.banned-nowhere]
        kind = "expression"
        allow = "subject.claims.groups.all(group, group != 'banned') && !('banned' in subject.claims.org.groups)"
        [policies.from-route]
        kind = "expression"
        allow = "request.route != '' && request.ip.startsWith('192.') && subject.id != ''"
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

/// The token's user with more claims: texts, a list and an object among them.
fn subject_with_claims(count: usize) -> Subject {
    let more = (0..count).map(|n| (format!("claim_{n}"), json!(format!("value {n}"))));
    let mut claims: Claims = more.collect();
    claims.insert("plan".to_owned(), json!("pro"));
    let groups: Vec<_> = (0..20).map(|n| format!("group_{n}")).collect();
    claims.insert("groups".to_owned(), json!(groups));
    claims.insert("org".to_owned(), json!({ "id": "o_1", "groups": groups }));
    Subject {
        id: SubjectId::parse("user_1").expect("the id is valid"),
        identity: IdentityName::parse("app").expect("the name is valid"),
        session: false,
        claims,
        expires_at: None,
    }
}

/// A request of the token's user, for the workspace that it is an editor of.
fn request(http: &HttpRequest, identities: &Arc<Identities>) -> UploadRequest {
    UploadRequest {
        route: RoutePath::parse("/api/imgwire/upload-token").expect("the path is valid"),
        workspace: Some(WorkspaceId::parse("ws_1").expect("the id is valid")),
        purpose: None,
        file: None,
        ip: [192, 0, 2, 1].into(),
        credentials: Box::new(RequestCredentials::new(
            http.clone(),
            identities.clone(),
            AppliedLimits::Failures,
        )),
    }
}

fn decides(policy: &dyn Policy, request: &UploadRequest, facts: &Facts) -> bool {
    let input = PolicyInput {
        request,
        facts,
        pass: Pass::Issue,
    };
    let decision = policy.decide(input).now_or_never();
    let decision = decision.expect("nothing waits").expect("it can tell");
    matches!(decision.verdict, Verdict::Allow)
}

fn chain(criterion: &mut Criterion) {
    let settings = settings();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let outbound = Outbound {
        http: HttpClient::new(
            tls_config(&settings.authorities),
            clock.clone(),
            Arc::default(),
        ),
        clock: clock.clone(),
        metrics: Arc::default(),
        caches: CacheCapacity::default(),
    };
    let proxies = ClientAddress::new(&settings.server);
    let identities = Arc::new(Identities::new(
        &settings.identities,
        None,
        CrossSite::new(&settings.server, &proxies),
        &Arc::new(ServerLimits::new(&settings.server, &proxies, &clock)),
        &outbound,
        &settings.claims(),
        None,
    ));
    let link = |name: &PolicyName| {
        let policy = settings.policy(name).expect("the policy exists");
        Link {
            name: name.clone(),
            kind: policy.kind.kind(),
            mode: policy.common.mode,
            on_failure: policy.on_failure(),
            when: None,
            provides: policy.requirements.provides,
            counter_store: None,
            policy: build(
                &*policy.kind,
                name,
                &clock,
                &Outside(&outbound, &identities),
            ),
        }
    };
    let chain = Chain::new(settings.routes[0].policies.iter().map(link).collect());
    let http = TestRequest::post()
        .insert_header(("authorization", format!("Bearer {}", token())))
        .to_http_request();

    criterion.bench_function("four policies", |bencher| {
        bencher.iter(|| {
            let request = request(&http, &identities);
            let evaluation = chain.evaluate(&request, Pass::Issue).now_or_never();
            let outcome = evaluation.expect("nothing waits").outcome;
            assert!(matches!(outcome, Outcome::Allowed(_)));
        });
    });

    let request = request(&http, &identities);
    let evaluation = chain.evaluate(&request, Pass::Preview).now_or_never();
    let facts = evaluation.expect("nothing waits").facts;
    for name in ["plan", "owner-or-editor", "not-suspended"] {
        let policy = link(&PolicyName::parse(name).expect("the name is valid")).policy;
        criterion.bench_function(&format!("expression {name}"), |bencher| {
            bencher.iter(|| assert!(decides(&*policy, &request, &facts)));
        });
    }

    // Facts of its own for each request: what expressions share of a request is made again.
    let subject = Arc::new(subject_with_claims(100));
    let named = |name: &str| link(&PolicyName::parse(name).expect("the name is valid")).policy;
    let plan = [named("plan")];
    let several = [
        "plan",
        "not-suspended",
        "not-banned",
        "banned-nowhere",
        "from-route",
    ]
    .map(named);
    for (case, policies) in [
        ("one expression", &plan[..]),
        ("five expressions", &several[..]),
    ] {
        criterion.bench_function(&format!("{case}, 100 claims"), |bencher| {
            bencher.iter(|| {
                let facts = Facts::new(Some(subject.clone()), None);
                assert!(
                    policies
                        .iter()
                        .all(|policy| decides(&**policy, &request, &facts))
                );
            });
        });
    }

    let name = PolicyName::parse("asked").expect("the name is valid");
    let system = System::new();
    let remote: RemoteSettings =
        serde_json::from_value(json!({ "url": service(), "cache": "1h" })).expect("it is valid");
    let remote = build(&remote, &name, &clock, &Outside(&outbound, &identities));
    let ask = async |policy: &dyn Policy, facts: &Facts| {
        let input = PolicyInput {
            request: &request,
            facts,
            pass: Pass::Issue,
        };
        policy.decide(input).await.expect("it can tell");
    };
    system.block_on(ask(&*remote, &facts));
    criterion.bench_function("remote, remembered", |bencher| {
        bencher.iter(|| assert!(decides(&*remote, &request, &facts)));
    });

    let member = settings.policies.iter();
    let member = member.map(|(_, policy)| policy);
    let mut member = member.filter(|policy| policy.requirements.query.is_some());
    let member = member.next().expect("the config has one");
    let member = build(
        &*member.kind,
        &name,
        &clock,
        &Outside(&outbound, &identities),
    );
    system.block_on(ask(&*member, &facts));
    criterion.bench_function("membership by SQL, remembered", |bencher| {
        bencher.iter(|| assert!(decides(&*member, &request, &facts)));
    });
}

/// The URL of a service that says yes.
fn service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!(
        "http://{}",
        listener.local_addr().expect("it has an address")
    );
    std::thread::spawn(move || {
        let yes = || App::new().default_service(web::to(HttpResponse::NoContent));
        let server = HttpServer::new(yes).workers(1).listen(listener);
        System::new().block_on(server.expect("it listens").run())
    });
    url
}

criterion_group!(benches, chain);
criterion_main!(benches);
