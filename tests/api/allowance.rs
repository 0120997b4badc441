//! The allowance: what a POST would get now.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::Value;

use crate::helpers::{Gate, ROUTE, Token, upload_intent};

#[actix_web::test]
async fn the_allowance_says_how_many_posts_would_pass_now() {
    let app = Gate::standard()
        .set("policies.burst.limit", 30)
        .set("policies.burst.burst", 3)
        .set("policies.daily.limit", 5)
        .start()
        .await;
    let token = Token::of("user_1").sign();
    let path = format!("{ROUTE}/allowance");
    let allowance = async || {
        let answer = app.request(Method::GET, &path).bearer(&token).send().await;
        let limits = answer.json["limits"].as_array().unwrap();
        let state = |limit: &Value| format!("{} of {}", limit["remaining"], limit["limit"]);
        let states: Vec<_> = limits.iter().map(state).collect();
        (answer.json["allowed"] == true, states)
    };
    for used in 0..3 {
        let left = [format!("{} of 3", 3 - used), format!("{} of 5", 5 - used)];
        assert_eq!(allowance().await, (true, left.to_vec()));
        app.ask().bearer(&token).send().await.assert_token();
    }
    // A limit that is reached does not hide the next one.
    let answer = app.ask().bearer(&token).send().await;
    answer.assert_error(429, "rate_limited");
    let none = ["0 of 3".to_owned(), "2 of 5".to_owned()];
    assert_eq!(allowance().await, (false, none.to_vec()));
    app.clock.advance(Duration::from_secs(2));
    let one = ["1 of 3".to_owned(), "2 of 5".to_owned()];
    assert_eq!(allowance().await, (true, one.to_vec()));
}

#[actix_web::test]
async fn the_query_of_the_allowance_describes_the_post() {
    let avatars = upload_intent()
        .purposes(["avatar"])
        .mime_types(["image/png"])
        .max_size("1MB");
    let app = Gate::standard()
        .policy("avatars", avatars)
        .chain(["signed-in", "avatars", "member", "daily"])
        .start()
        .await;
    let token = Token::of("user_1").sign();
    for (query, allowed, code) in [
        (
            "?purpose=avatar&mimeType=image/png&size=5&workspace=ws_1",
            true,
            "",
        ),
        // Policies on what is not described are skipped.
        ("?purpose=avatar", true, ""),
        ("?purpose=avatar&mimeType=image/png", true, ""),
        ("?purpose=avatar&size=2000000", false, "file_too_large"),
        (
            "?purpose=avatar&mimeType=image/gif",
            false,
            "file_type_forbidden",
        ),
        (
            "?purpose=avatar&mimeType=image/gif&size=5",
            false,
            "file_type_forbidden",
        ),
        (
            "?purpose=avatar&mimeType=image/png&size=2000000",
            false,
            "file_too_large",
        ),
        (
            "?purpose=other&mimeType=image/png&size=5",
            false,
            "purpose_forbidden",
        ),
        (
            "?purpose=avatar&mimeType=image/png&size=5&workspace=ws_9",
            false,
            "workspace_forbidden",
        ),
    ] {
        let path = format!("{ROUTE}/allowance{query}");
        let answer = app.request(Method::GET, &path).bearer(&token).send().await;
        assert_eq!(answer.status, 200, "{query}");
        let code_of_answer = answer.json["code"].as_str().unwrap_or_default();
        assert_eq!(
            (answer.json["allowed"] == allowed, code_of_answer),
            (true, code),
            "{query}"
        );
    }
    for (query, message) in [
        ("?size=x", "`size` must be a number of bytes"),
        ("?size=-1", "`size` must be a number of bytes"),
        ("?file=x", "unknown parameter `file`"),
        ("?size=1&size=2", "the parameter `size` is there twice"),
        ("?purpose=", "purpose"),
        ("?workspace=", "workspace"),
    ] {
        let path = format!("{ROUTE}/allowance{query}");
        let answer = app.request(Method::GET, &path).bearer(&token).send().await;
        answer.assert_error(400, "bad_request");
        let found = answer.json["message"].as_str().unwrap();
        assert!(found.contains(message), "{query}: {found}");
    }
}
