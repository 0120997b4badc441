//! Other rules while the gate runs.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use actix_web::http::Method;
use futures_util::future::join_all;
use jsonwebtoken::Algorithm;

use crate::{
    helpers::{Recipe, TestApp, Token},
    process::GateProcess,
    service::{Reply, Service},
    signing::{self, SigningKey},
};

/// Rules of `limits`, all of which the route has.
fn rules(limits: &[(&str, &str)]) -> Recipe {
    let policies = limits
        .iter()
        .map(|(name, settings)| format!("[policies.{name}]\n{settings}\n"));
    let names: Vec<_> = limits
        .iter()
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    Recipe {
        policies: format!(
            "[policies.signed-in]\nkind = \"signed_in\"\naccept = [\"app\"]\n{}",
            policies.collect::<String>()
        ),
        chain: format!("[\"signed-in\", {}]", names.join(", ")),
        ..Recipe::default()
    }
}

fn burst(limit: u32, period: &str) -> String {
    format!("kind = \"rate_limit\"\nper = [\"user\"]\nlimit = {limit}\nperiod = \"{period}\"")
}

fn quota(limit: u32) -> String {
    format!(
        "kind = \"quota\"\nper = [\"user\"]\nlimit = {limit}\nwindow = \"day\"\nstore = \"main\""
    )
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
async fn routes_policies_and_identities_are_replaced_together() {
    let app = rules(&[("burst", &burst(100, "1m"))]).start().await;
    assert_eq!(issued(&app, 1).await, 1);
    let other = Recipe {
        more: "[identities.proxy]\nkind = \"forwarded\"\nsubject = \"x-user\"".to_owned(),
        routes: "[[routes]]\npath = \"/other\"\npolicies = [\"by-proxy\"]".to_owned(),
        server: "trusted_proxies = [\"127.0.0.1/32\"]".to_owned(),
        ..rules(&[
            ("nobody", "kind = \"expression\"\nallow = \"false\""),
            ("by-proxy", "kind = \"signed_in\"\naccept = [\"proxy\"]"),
        ])
    };
    let chain = "[\"signed-in\", \"nobody\"]".to_owned();
    app.reload(&Recipe { chain, ..other }).unwrap();
    let answer = app.ask_as(&Token::of("user_1")).await;
    answer.assert_error(403, "rule_forbidden");
    // Whom the gate believes is [server]'s, which only a start changes.
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

    app.reload(&rules(&[("burst", &burst(100, "1m"))])).unwrap();
    assert_eq!(issued(&app, 1).await, 1);
    let gone = app.request(Method::POST, "/other").send().await;
    gone.assert_error(404, "not_found");
}

#[actix_web::test]
async fn a_faulty_file_changes_nothing_and_is_counted() {
    let app = rules(&[("burst", &burst(100, "1m"))]).start().await;
    let faulty = rules(&[("burst", &burst(0, "1m"))]);
    let error = app.reload(&faulty).unwrap_err().to_string();
    assert!(error.contains("policies.burst.limit"), "{error}");
    // A file of counters that another gate has.
    let elsewhere = TestApp::start().await;
    let path = elsewhere.folder.path().join("gate.db");
    let taken = Recipe {
        more: format!("[stores.taken]\nurl = \"sqlite:{}\"", path.display()),
        ..rules(&[("daily", &quota(1).replace("main", "taken"))])
    };
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
async fn counters_go_on_by_the_name_of_their_policy() {
    let app = rules(&[("burst", &burst(3, "1h")), ("daily", &quota(10))])
        .start()
        .await;
    assert_eq!(issued(&app, 2).await, 2);
    // The same, beside a new policy.
    let same = [
        ("burst", burst(3, "1h")),
        ("daily", quota(10)),
        ("more", burst(9, "1h")),
    ];
    let same = same
        .each_ref()
        .map(|(name, settings)| (*name, settings.as_str()));
    app.reload(&rules(&same)).unwrap();
    assert_eq!(issued(&app, 5).await, 1);
    // A higher limit: what is used up stays used up.
    app.reload(&rules(&[("burst", &burst(5, "2h")), ("daily", &quota(10))]))
        .unwrap();
    assert_eq!(issued(&app, 9).await, 2);
    // A lower one.
    app.reload(&rules(&[("burst", &burst(2, "1h")), ("daily", &quota(10))]))
        .unwrap();
    assert_eq!(issued(&app, 3).await, 0);
    // Without it, the quota of ten has five left.
    app.reload(&rules(&[("daily", &quota(10))])).unwrap();
    assert_eq!(issued(&app, 9).await, 5);
    app.reload(&rules(&[("daily", &quota(12))])).unwrap();
    assert_eq!(issued(&app, 9).await, 2);
    // Under another name it is another counter.
    app.reload(&rules(&[("other", &quota(3))])).unwrap();
    assert_eq!(issued(&app, 9).await, 3);
}

#[actix_web::test]
async fn under_load_no_request_fails_and_no_unit_is_lost_or_won() {
    const LIMIT: u32 = 2_000;
    let with = |extra: &str| rules(&[("daily", &quota(LIMIT)), ("extra", extra)]);
    let first = "kind = \"expression\"\nallow = \"request.route != ''\"";
    let second = burst(1_000_000, "1s");
    let app = with(first).start().await;
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
            let extra = if reloads % 2 == 0 {
                second.as_str()
            } else {
                first
            };
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
async fn a_request_finishes_on_the_chain_that_it_started_with() {
    let app_service = Service::start();
    app_service.answer(
        "/decide",
        Reply::status(200).after(std::time::Duration::from_millis(500)),
    );
    let slow = format!("kind = \"remote\"\nurl = \"{}/decide\"", app_service.url);
    let app = rules(&[("slow", &slow)]).start().await;
    let token = Token::of("user_1");
    let asking = app.ask_as(&token);
    let reloading = async {
        crate::helpers::eventually("the question", async || {
            !app_service.seen("/decide").is_empty()
        })
        .await;
        let nobody = "kind = \"expression\"\nallow = \"false\"";
        app.reload(&rules(&[("nobody", nobody)])).unwrap();
    };
    let (answer, ()) = tokio::join!(asking, reloading);
    answer.assert_token();
    let answer = app.ask_as(&token).await;
    answer.assert_error(403, "rule_forbidden");
}

#[actix_web::test]
async fn keys_that_were_fetched_serve_on_while_their_issuer_is_down() {
    let issuer = Service::start();
    let key = SigningKey::new("first", Algorithm::ES256);
    issuer.answer("/jwks", Reply::json(&signing::set(&[&key])));
    let identity = format!(
        "[identities.idp]\nkind = \"jwt\"\nalgorithms = [\"ES256\"]\njwks_url = \"{}/jwks\"\naudience = [\"imgwire-gate\"]",
        issuer.url
    );
    let app = Recipe::accepting("[\"idp\"]", &identity).start().await;
    let token = key.sign(&Token::of("user_1"));
    crate::helpers::eventually("the keys", async || {
        app.ask().bearer(&token).send().await.status == 200
    })
    .await;
    issuer.answer("/jwks", Reply::status(500));
    let more = format!("{identity}\n[identities.also]\nkind = \"forwarded\"\nsubject = \"x-user\"");
    app.reload(&Recipe::accepting("[\"idp\", \"also\"]", &more))
        .unwrap_err();
    app.reload(&Recipe::accepting("[\"idp\", \"browser\"]", &identity))
        .unwrap();
    app.ask().bearer(&token).send().await.assert_token();
}

#[actix_web::test]
async fn sighup_and_a_watched_change_load_the_file_again() {
    let imgwire = imgwire_gate::sandbox::emulator::Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.toml");
    let write = |limits: &[(&str, &str)]| {
        fs::write(&path, rules(limits).config(imgwire.url(), folder.path())).unwrap();
    };
    let nobody = ("nobody", "kind = \"expression\"\nallow = \"false\"");
    let token = Token::of("user_1").sign();
    for watch in [false, true] {
        write(&[("burst", &burst(100, "1m"))]);
        let mut gate =
            GateProcess::start_with(&path, &[], "info", if watch { &["--watch"] } else { &[] })
                .await;
        let hang_up = || {
            if !watch {
                gate.signal("-HUP");
            }
        };
        assert_eq!(gate.ask(&token).await, Some(200));
        write(&[nobody]);
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
        let config = rules(&[("burst", &burst(100, "1m"))]).config(imgwire.url(), folder.path());
        fs::write(&path, config.replace("workers = 2", "workers = 1")).unwrap();
        hang_up();
        crate::helpers::eventually("the rules", async || gate.ask(&token).await == Some(200)).await;
        crate::helpers::eventually("the hint", async || {
            let lines = gate.lines();
            let mut lines = lines.iter();
            lines.any(|line| line["level"] == "WARN" && line["section"] == "server")
        })
        .await;
        gate.signal("-TERM");
        assert!(gate.end().await.success());
    }
}
