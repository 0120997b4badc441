//! `storage`: how much is held, and who is denied an upload that does not fit.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Answer, ENVIRONMENT, Endpoint, Entry, Gate, Misbehaviour, TestApp, Token, eventually,
        quota, storage,
    },
    images::{delete, show},
    upload_records::{self, png_of, state},
    uploads::{create, create_at, created, id, png, remaining, with, with_policies},
};

/// A gate that limits storage after the membership is known.
pub(crate) fn holding(space: Entry) -> Gate {
    with_policies(["signed-in", "member", "space"]).policy("space", space)
}

pub(crate) fn file(size: u64) -> Value {
    with(png(), &json!({ "content_length": size }))
}

/// A member of `ws_1` and `ws_2`.
fn member(user: &str) -> Token {
    Token::of(user).with("workspaces", json!(["ws_1", "ws_2"]))
}

/// The bytes, the images and the open uploads under a key of the policy `space`.
pub(crate) async fn held(app: &TestApp, key: &str) -> [u64; 3] {
    held_by(app, "space", key).await
}

async fn held_by(app: &TestApp, policy: &str, key: &str) -> [u64; 3] {
    let answer = app.manage(&format!("/quota/{policy}?key={key}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    ["bytes", "images", "open"].map(|part| answer.json[part].as_u64().unwrap())
}

/// Sends a file of another size, perhaps.
async fn put(created: &Answer, size: usize) {
    let url = created.json["upload_url"].as_str().unwrap();
    let status = upload_records::put(url, "image/png", png_of(size)).await;
    assert_eq!(status, 200);
}

/// Reads the image until it is ready, which settles its record.
async fn settled(app: &TestApp, token: &Token, image: &str) {
    eventually("the record is settled", async || {
        let shown = show(app, token, image).await;
        shown.json["status"] == "READY" && state(app, image).await == "ready"
    })
    .await;
}

#[actix_web::test]
async fn an_upload_that_does_not_fit_is_denied_until_something_is_deleted() {
    let app = holding(storage().per(["user"]).max_bytes("100B"))
        .start()
        .await;
    let token = Token::of("user_1");
    let first = created(&app, &token, &file(60)).await;
    let denied = create(&app, &token, &file(41)).await;
    denied.assert_error(429, "storage_full");
    for header in ["retry-after", "ratelimit", "ratelimit-policy"] {
        assert_eq!(denied.header(header), "", "{header}");
    }
    assert_eq!(app.imgwire.asked_at(Endpoint::Upload), 1);
    created(&app, &token, &file(40)).await;
    create(&app, &token, &file(1))
        .await
        .assert_error(429, "storage_full");
    assert_eq!(held(&app, "user_1").await, [100, 2, 2]);
    assert_eq!(delete(&app, &token, &first).await.status, 204);
    assert_eq!(held(&app, "user_1").await, [40, 1, 1]);
    created(&app, &token, &file(60)).await;
    assert_eq!(held(&app, "user_1").await, [100, 2, 2]);
    assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 2);
}

#[actix_web::test]
async fn storage_is_counted_by_user_by_workspace_or_for_all() {
    let uploads = [
        ("user_1", "ws_1"),
        ("user_1", "ws_2"),
        ("user_2", "ws_1"),
        ("user_2", "ws_2"),
    ];
    for (per, fits, key) in [
        (&["user"][..], [true, false, true, false], "user_1"),
        (&["workspace"], [true, true, false, false], "ws_1"),
        (&["user", "workspace"], [true; 4], "user_1/ws_1"),
        (&["workspace", "user"], [true; 4], "ws_1/user_1"),
        (&[], [true, false, false, false], ""),
    ] {
        let app = holding(storage().per(per).max_images(1)).start().await;
        for ((user, workspace), fits) in uploads.into_iter().zip(fits) {
            let at = format!("/imgwire/{workspace}");
            let answer = create_at(&app, &at, &member(user), &png()).await;
            let code = if fits { "" } else { "storage_full" };
            assert_eq!(
                answer.code(),
                code,
                "{per:?} {user} {workspace}: {answer:?}"
            );
        }
        assert_eq!(held(&app, key).await, [48_213, 1, 1], "{per:?}");
    }
}

#[actix_web::test]
async fn a_plan_decides_how_much_is_held() {
    let space = storage()
        .per(["user"])
        .max_bytes(
            json!({ "claim": "plan", "values": { "pro": "1kB", "free": 0 }, "default": 100 }),
        )
        .max_images(json!({ "claim": "seats", "values": { "7": 2 }, "default": 1 }));
    let app = holding(space).start().await;
    for (user, claims, sizes, fits) in [
        (
            "pro",
            json!({ "plan": "pro", "seats": 7 }),
            [600, 400, 1],
            2,
        ),
        ("few", json!({ "plan": "pro" }), [600, 400, 1], 1),
        ("free", json!({ "plan": "free", "seats": 7 }), [1, 1, 1], 0),
        ("none", json!({ "seats": 7 }), [100, 1, 1], 1),
    ] {
        let claims = claims.as_object().unwrap().clone();
        let token = claims
            .into_iter()
            .fold(Token::of(user), |token, (name, value)| {
                token.with(&name, value)
            });
        for (index, size) in sizes.into_iter().enumerate() {
            let code = create(&app, &token, &file(size)).await.code().to_owned();
            let expected = if index < fits { "" } else { "storage_full" };
            assert_eq!(code, expected, "{user} {index}");
        }
    }
}

#[actix_web::test]
async fn open_uploads_are_limited_until_their_files_arrive() {
    let app = holding(storage().per(["user"]).max_images(10).max_open(2))
        .start()
        .await;
    let token = Token::of("user_1");
    let first = create(&app, &token, &file(67)).await;
    created(&app, &token, &file(67)).await;
    create(&app, &token, &file(67))
        .await
        .assert_error(429, "storage_full");
    put(&first, 67).await;
    settled(&app, &token, &id(&first)).await;
    assert_eq!(held(&app, "user_1").await, [134, 2, 1]);
    created(&app, &token, &file(67)).await;
    // Another user has other open uploads.
    created(&app, &Token::of("user_2"), &file(67)).await;
}

#[actix_web::test]
async fn the_real_size_counts_once_the_file_has_arrived() {
    let app = holding(storage().per(["user"]).max_bytes(1000))
        .start()
        .await;
    let token = Token::of("user_1");
    let larger = create(&app, &token, &file(100)).await;
    let smaller = create(&app, &token, &file(900)).await;
    assert_eq!(held(&app, "user_1").await, [1000, 2, 2]);
    put(&larger, 700).await;
    settled(&app, &token, &id(&larger)).await;
    // More than the limit, by the difference that the client hid.
    assert_eq!(held(&app, "user_1").await, [1600, 2, 1]);
    put(&smaller, 200).await;
    settled(&app, &token, &id(&smaller)).await;
    assert_eq!(held(&app, "user_1").await, [900, 2, 0]);
    // A later read changes nothing.
    settled(&app, &token, &id(&smaller)).await;
    assert_eq!(held(&app, "user_1").await, [900, 2, 0]);
    assert_eq!(delete(&app, &token, &id(&larger)).await.status, 204);
    assert_eq!(held(&app, "user_1").await, [200, 1, 0]);
}

#[actix_web::test]
async fn an_upload_that_imgwire_refuses_holds_nothing() {
    let app = holding(storage().per(["user"]).max_images(1))
        .imgwire("retries", 0)
        .start()
        .await;
    let token = Token::of("user_1");
    let refused = Misbehaviour::Status(422, None);
    app.imgwire.misbehave_at(Endpoint::Upload, Some(refused));
    for _ in 0..3 {
        let answer = create(&app, &token, &png()).await;
        answer.assert_error(500, "imgwire_failed");
        assert_eq!(held(&app, "user_1").await, [0, 0, 0]);
    }
    app.imgwire.misbehave_at(Endpoint::Upload, None);
    created(&app, &token, &png()).await;
}

#[actix_web::test]
async fn a_quota_before_full_storage_gets_its_unit_back() {
    let app = with_policies(["signed-in", "member", "daily", "space"])
        .policy("daily", quota().per(["user"]).limit(10))
        .policy("space", storage().per(["user"]).max_images(1))
        .start()
        .await;
    let token = Token::of("user_1");
    created(&app, &token, &png()).await;
    for _ in 0..3 {
        let denied = create(&app, &token, &png()).await;
        denied.assert_error(429, "storage_full");
        assert_eq!(denied.header("retry-after"), "");
    }
    assert_eq!(remaining(&app, &token, "daily").await, 9);
}

#[actix_web::test]
async fn a_denial_of_one_policy_takes_nothing_of_another() {
    let app = with_policies(["signed-in", "member", "space", "ours"])
        .policy("space", storage().per(["user"]).max_images(10))
        .policy("ours", storage().per(["workspace"]).max_images(1))
        .start()
        .await;
    created(&app, &Token::of("user_1"), &file(5)).await;
    let denied = create(&app, &Token::of("user_2"), &file(5)).await;
    denied.assert_error(429, "storage_full");
    assert_eq!(held(&app, "user_2").await, [0, 0, 0]);
    assert_eq!(held(&app, "user_1").await, [5, 1, 1]);
    assert_eq!(held_by(&app, "ours", "ws_1").await, [5, 1, 1]);
}

#[actix_web::test]
async fn a_repeated_key_holds_nothing_more() {
    let app = holding(storage().per(["user"]).max_images(1)).start().await;
    let token = Token::of("user_1");
    let keyed = with(file(10), &json!({ "idempotency_key": "a" }));
    let first = created(&app, &token, &keyed).await;
    for _ in 0..3 {
        // Although the storage is full.
        assert_eq!(created(&app, &token, &keyed).await, first);
        assert_eq!(held(&app, "user_1").await, [10, 1, 1]);
    }
    assert_eq!(delete(&app, &token, &first).await.status, 204);
    assert_eq!(held(&app, "user_1").await, [0, 0, 0]);
    assert_ne!(created(&app, &token, &keyed).await, first);
    assert_eq!(held(&app, "user_1").await, [10, 1, 1]);
}

#[actix_web::test]
async fn concurrent_uploads_never_exceed_a_limit() {
    for (space, most) in [
        (storage().max_images(7), 7),
        (storage().max_bytes(75), 7),
        (storage().max_images(100).max_open(7), 7),
    ] {
        let app = holding(space.per(["workspace"]))
            .server("max_in_flight", 100)
            .start()
            .await;
        let fitting = AtomicU64::new(0);
        let attempts = (0..40).map(|number| {
            let (app, fitting) = (&app, &fitting);
            async move {
                let token = Token::of(&format!("user_{}", number % 4));
                let answer = create(app, &token, &file(10)).await;
                match answer.status.as_u16() {
                    200 => fitting.fetch_add(1, SeqCst),
                    _ => {
                        answer.assert_error(429, "storage_full");
                        0
                    }
                };
            }
        });
        join_all(attempts).await;
        assert_eq!(fitting.load(SeqCst), most);
        assert_eq!(held(&app, "ws_1").await, [10 * most, most, most]);
        assert_eq!(app.imgwire.images(ENVIRONMENT).len() as u64, most);
    }
}

#[actix_web::test]
async fn an_upload_of_an_undeclared_size_is_denied() {
    let app = holding(storage().per(["user"]).max_images(1)).start().await;
    let answer = create(
        &app,
        &Token::of("user_1"),
        &json!({ "file_name": "me.png" }),
    )
    .await;
    answer.assert_error(403, "file_required");
    assert_eq!(held(&app, "user_1").await, [0, 0, 0]);
}

#[actix_web::test]
async fn a_policy_that_observes_counts_and_denies_nothing() {
    let app = holding(storage().per(["user"]).max_images(1).observe())
        .start()
        .await;
    let token = Token::of("user_1");
    for images in 1..=3 {
        created(&app, &token, &file(5)).await;
        assert_eq!(held(&app, "user_1").await, [5 * images, images, images]);
    }
    let counted = "imgwire_gate_decisions_total{route=\"/imgwire/{workspace}\",outcome=\"would_deny\",policy=\"space\",code=\"storage_full\"}";
    assert_eq!(app.metric(counted).await, 2.0);
    let allowance = app.request(Method::GET, "/imgwire/ws_1/allowance");
    let allowance = allowance.bearer(&token.sign()).send().await;
    assert_eq!(allowance.json, json!({ "allowed": true, "limits": [] }));
}

#[actix_web::test]
async fn a_renamed_policy_starts_over_and_a_changed_limit_does_not() {
    let space = |most: u64| holding(storage().per(["user"]).max_images(most));
    let app = space(2).start().await;
    let token = Token::of("user_1");
    for _ in 0..2 {
        created(&app, &token, &file(5)).await;
    }
    app.reload(&space(3)).unwrap();
    created(&app, &token, &file(5)).await;
    app.reload(&space(1)).unwrap();
    let denied = create(&app, &token, &file(5)).await;
    denied.assert_error(429, "storage_full");
    assert_eq!(held(&app, "user_1").await, [15, 3, 3]);

    let renamed = with_policies(["signed-in", "member", "room"])
        .policy("room", storage().per(["user"]).max_images(1));
    app.reload(&renamed).unwrap();
    assert_eq!(held_by(&app, "room", "user_1").await, [0, 0, 0]);
    let image = created(&app, &token, &file(5)).await;
    assert_eq!(held_by(&app, "room", "user_1").await, [5, 1, 1]);

    // Its images are still those that the first policy has counted.
    app.reload(&space(1)).unwrap();
    assert_eq!(held(&app, "user_1").await, [15, 3, 3]);
    assert_eq!(delete(&app, &token, &image).await.status, 204);
    assert_eq!(held(&app, "user_1").await, [15, 3, 3]);
}

#[actix_web::test]
async fn what_is_held_survives_a_restart() {
    let gate = || holding(storage().per(["user"]).max_images(2));
    let mut app = gate().start().await;
    let token = Token::of("user_1");
    created(&app, &token, &file(5)).await;
    app.begin_stop();
    let app = gate().start_in(app.stopped().await).await;
    assert_eq!(held(&app, "user_1").await, [5, 1, 1]);
    created(&app, &token, &file(5)).await;
    let denied = create(&app, &token, &file(5)).await;
    denied.assert_error(429, "storage_full");
}

#[actix_web::test]
async fn an_erased_user_holds_nothing() {
    let app = holding(storage().per(["workspace"]).max_images(9))
        .start()
        .await;
    for user in ["user_1", "user_2", "user_1"] {
        created(&app, &Token::of(user), &file(5)).await;
    }
    let erase = app.request_management(Method::DELETE, "/subjects/user_1/images");
    assert_eq!(erase.send().await.status, 202);
    eventually("the erasure", async || {
        held(&app, "ws_1").await == [5, 1, 1]
    })
    .await;
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(app.imgwire.images(ENVIRONMENT).len(), 1);
}
