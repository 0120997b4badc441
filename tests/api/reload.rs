//! Reloads of the config while the gate runs.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use actix_web::http::Method;
use futures_util::future::join_all;
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::{
    helpers::{
        Emulator, Entry, Gate, TestApp, Token, expression, forwarded, published_jwt, quota,
        rate_limit, remote_decision, signed_in,
    },
    process::GateProcess,
    service::{Reply, Service},
    signing::{self, SigningKey},
};

fn burst(limit: u32, period: &str) -> Entry {
    rate_limit().per(["user"]).limit(limit).period(period)
}

fn daily(limit: u32) -> Entry {
    quota().per(["user"]).limit(limit)
}

/// A rule that denies every request.
fn deny_all() -> Entry {
    expression("false")
}

async fn issued(app: &TestApp, attempts: u32) -> u32 {
    let token = Token::of("user_1");
    let mut issued = 0;
    for _ in 0..attempts {
        issued += u32::from(app.ask_as(&token).await.status == 200);
    }
    issued
}

#[actix_web::test]
async fn a_reload_replaces_routes_policies_and_identities_together() {
    let app = Gate::with_policies([("burst", burst(100, "1m"))])
        .start()
        .await;
    assert_eq!(issued(&app, 1).await, 1);
    let other = Gate::with_policies([("deny-all", deny_all())])
        .server("trusted_proxies", ["127.0.0.1/32"])
        .identity("proxy", forwarded("x-user"))
        .policy("by-proxy", signed_in(["proxy"]))
        .route("/other", ["by-proxy"]);
    app.reload(&other).unwrap();
    let answer = app.ask_as(&Token::of("user_1")).await;
    answer.assert_error(403, "rule_forbidden");
    // The trusted proxies belong to [server], which only a restart changes.
    let asked = app
        .request(Method::POST, "/other")
        .header("x-user", "user_1");
    asked.send().await.assert_error(401, "not_signed_in");
    let allowance = app.request(Method::GET, "/other/allowance").send().await;
    allowance.assert_error(401, "not_signed_in");
    assert_eq!(
        app.metric("imgwire_gate_config_reloads_total{result=\"applied\"}")
            .await,
        1.0
    );

    app.reload(&Gate::with_policies([("burst", burst(100, "1m"))]))
        .unwrap();
    assert_eq!(issued(&app, 1).await, 1);
    let gone = app.request(Method::POST, "/other").send().await;
    gone.assert_error(404, "not_found");
}

#[actix_web::test]
async fn a_faulty_config_changes_nothing_and_is_counted() {
    let app = Gate::with_policies([("burst", burst(100, "1m"))])
        .start()
        .await;
    let faulty = Gate::with_policies([("burst", burst(0, "1m"))]);
    let error = app.reload(&faulty).unwrap_err().to_string();
    assert!(error.contains("policies.burst.limit"), "{error}");
    // A SQLite file that another gate uses.
    let elsewhere = TestApp::start().await;
    let path = elsewhere.folder.path().join("gate.db");
    let taken = Gate::with_policies([("daily", daily(1).store("taken"))]).store(
        "taken",
        json!({ "url": format!("sqlite:{}", path.display()) }),
    );
    let error = app.reload(&taken).unwrap_err().to_string();
    assert!(
        error.contains("taken") && error.contains("in use"),
        "{error}"
    );
    assert_eq!(issued(&app, 3).await, 3);
    let counted = app.metric("imgwire_gate_config_reloads_total{result=\"refused\"}");
    assert_eq!(counted.await, 2.0);
}

#[actix_web::test]
async fn counters_continue_under_the_name_of_their_policy() {
    let app = Gate::with_policies([("burst", burst(3, "1h")), ("daily", daily(10))])
        .start()
        .await;
    assert_eq!(issued(&app, 2).await, 2);
    // The same policies and a new one.
    let same = Gate::with_policies([
        ("burst", burst(3, "1h")),
        ("daily", daily(10)),
        ("more", burst(9, "1h")),
    ]);
    app.reload(&same).unwrap();
    assert_eq!(issued(&app, 5).await, 1);
    // A higher limit keeps what is used.
    let higher = Gate::with_policies([("burst", burst(5, "2h")), ("daily", daily(10))]);
    app.reload(&higher).unwrap();
    assert_eq!(issued(&app, 9).await, 2);
    // So does a lower one.
    let lower = Gate::with_policies([("burst", burst(2, "1h")), ("daily", daily(10))]);
    app.reload(&lower).unwrap();
    assert_eq!(issued(&app, 3).await, 0);
    // Without the rate limit, the quota of ten has five left.
    app.reload(&Gate::with_policies([("daily", daily(10))]))
        .unwrap();
    assert_eq!(issued(&app, 9).await, 5);
    app.reload(&Gate::with_policies([("daily", daily(12))]))
        .unwrap();
    assert_eq!(issued(&app, 9).await, 2);
    // A policy with another name has another counter.
    app.reload(&Gate::with_policies([("other", daily(3))]))
        .unwrap();
}

#[actix_web::test]
async fn reloads_under_load_fail_no_request_and_lose_no_unit() {
    const LIMIT: u32 = 2_000;
    let with = |extra: Entry| Gate::with_policies([("daily", daily(LIMIT)), ("extra", extra)]);
    let first = || expression("request.route != ''");
    let second = || burst(1_000_000, "1s");
    let app = with(first()).start().await;
    let (issued, exhausted) = (AtomicU32::new(0), AtomicU32::new(0));
    let is_over = AtomicBool::new(false);
    let token = Token::of("user_1").sign();
    let asking = join_all((0..32).map(|_| async {
        while exhausted.load(Ordering::Relaxed) < 200 {
            let answer = app.ask().bearer(&token).send().await;
            match answer.status.as_u16() {
                200 => issued.fetch_add(1, Ordering::Relaxed),
                _ => {
                    answer.assert_error(429, "quota_exhausted");
                    exhausted.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
        is_over.store(true, Ordering::Relaxed);
    }));
    let reloading = async {
        let mut reloads = 0;
        while !is_over.load(Ordering::Relaxed) {
            let extra = if reloads % 2 == 0 { second() } else { first() };
            app.reload(&with(extra)).unwrap();
            reloads += 1;
            tokio::task::yield_now().await;
        }
        reloads
    };
    let (_, reloads) = tokio::join!(asking, reloading);
    assert!(reloads > 10, "{reloads}");
    assert_eq!(issued.into_inner(), LIMIT);
}

#[actix_web::test]
async fn a_request_finishes_with_the_chain_that_it_started_with() {
    let app_service = Service::start();
    app_service.answer(
        "/decide",
        Reply::status(200).after(std::time::Duration::from_millis(500)),
    );
    let slow = remote_decision(&format!("{}/decide", app_service.url));
    let app = Gate::with_policies([("slow", slow)]).start().await;
    let token = Token::of("user_1");
    let asking = app.ask_as(&token);
    let reloading = async {
        crate::helpers::eventually("the question", async || {
            !app_service.seen("/decide").is_empty()
        })
        .await;
        app.reload(&Gate::with_policies([("deny-all", deny_all())]))
            .unwrap();
    };
    let (answer, ()) = tokio::join!(asking, reloading);
    answer.assert_token();
    let answer = app.ask_as(&token).await;
    answer.assert_error(403, "rule_forbidden");
}

#[actix_web::test]
async fn fetched_keys_keep_serving_after_a_reload_while_their_issuer_is_down() {
    let issuer = Service::start();
    let key = SigningKey::new("first", Algorithm::ES256);
    issuer.answer("/jwks", Reply::json(&signing::set(&[&key])));
    let jwks_url = format!("{}/jwks", issuer.url);
    let accepting = |names: [&str; 2]| {
        Gate::accepting(names.to_vec()).identity("idp", published_jwt(["ES256"], &jwks_url))
    };
    let app = accepting(["idp", "app"]).start().await;
    let token = key.sign(&Token::of("user_1"));
    crate::helpers::eventually("the keys", async || {
        app.ask().bearer(&token).send().await.status == 200
    })
    .await;
    issuer.answer("/jwks", Reply::status(500));
    // A forwarded identity without trusted proxies is a fault.
    let faulty = accepting(["idp", "also"]).identity("also", forwarded("x-user"));
    app.reload(&faulty).unwrap_err();
    app.reload(&accepting(["idp", "browser"])).unwrap();
    app.ask().bearer(&token).send().await.assert_token();
}

#[actix_web::test]
async fn sighup_and_a_watched_change_reload_the_config() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |gate: Gate| gate.write(imgwire.url(), folder.path());
    let good = || Gate::with_policies([("burst", burst(100, "1m"))]);
    let token = Token::of("user_1").sign();
    for watch in [false, true] {
        let path = write(good());
        let mut gate =
            GateProcess::start_with(&path, &[], "info", if watch { &["--watch"] } else { &[] })
                .await;
        let hang_up = || {
            if !watch {
                gate.signal("-HUP");
            }
        };
        assert_eq!(gate.ask(&token).await, Some(200));
        write(Gate::with_policies([("deny-all", deny_all())]));
        hang_up();
        crate::helpers::eventually("the rules", async || gate.ask(&token).await == Some(403)).await;
        fs::write(&path, "[server").unwrap();
        hang_up();
        crate::helpers::eventually("the fault's line", async || {
            gate.lines().iter().any(|line| {
                let error = line["error"].as_str().unwrap_or_default();
                line["level"] == "ERROR" && error.contains("gate.toml:1:")
            })
        })
        .await;
        assert_eq!(gate.ask(&token).await, Some(403));
        write(good().server("workers", 1));
        hang_up();
        crate::helpers::eventually("the rules", async || gate.ask(&token).await == Some(200)).await;
        crate::helpers::eventually("the hint", async || {
            let lines = gate.lines();
            let mut lines = lines.iter();
            lines.any(|line| line["level"] == "WARN" && line["keys"] == "server.workers")
        })
        .await;
        gate.signal("-TERM");
        assert!(gate.end().await.success());
    }
}
