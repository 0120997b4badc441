//! Images of upload routes: who sees, lists and deletes which.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Answer, ENVIRONMENT, Emulator, Endpoint, ErrorType, Gate, Misbehaviour, SERVER_API_KEY,
        TestApp, Token, eventually, signed_in, upload_route, workspace_member,
    },
    process::{GateProcess, write_config},
    uploads::{CREATE, IMAGES, ROUTE, WORKSPACE, create, create_at, created, gate, id, png, with},
};

async fn send(app: &TestApp, method: Method, path: &str, token: &Token) -> Answer {
    let request = app.request(method, path);
    request.bearer(&token.sign()).send().await
}

pub(crate) async fn show(app: &TestApp, token: &Token, id: &str) -> Answer {
    send(app, Method::GET, &format!("{WORKSPACE}{IMAGES}{id}"), token).await
}

pub(crate) async fn delete(app: &TestApp, token: &Token, id: &str) -> Answer {
    send(
        app,
        Method::DELETE,
        &format!("{WORKSPACE}{IMAGES}{id}"),
        token,
    )
    .await
}

pub(crate) async fn list(app: &TestApp, token: &Token, query: &str) -> Answer {
    send(
        app,
        Method::GET,
        &format!("{WORKSPACE}{IMAGES}{query}"),
        token,
    )
    .await
}

pub(crate) fn ids(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let images = answer.json.as_array().unwrap().iter();
    images.map(|image| image["id"].as_str().unwrap()).collect()
}

#[actix_web::test]
async fn every_member_of_the_workspace_sees_its_images() {
    let app = gate().start().await;
    let image = created(&app, &Token::of("user_1"), &png()).await;
    for user in ["user_1", "user_2"] {
        let answer = show(&app, &Token::of(user), &image).await;
        assert_eq!(answer.status, 200);
        answer.assert_envelope();
        assert_eq!(answer.json["id"], image);
        assert_eq!(answer.json["original_filename"], "me.png");
        assert_eq!(ids(&list(&app, &Token::of(user), "").await), [&image]);
    }
}

#[actix_web::test]
async fn every_other_image_is_unknown_and_imgwire_is_not_asked() {
    let app = gate()
        .route_with(upload_route("/mine", ["signed-in"]))
        .start()
        .await;
    let owner = Token::of("user_1").with("workspaces", json!(["ws_1", "ws_2"]));
    let ours = created(&app, &owner, &png()).await;
    let theirs = id(&create_at(&app, "/imgwire/ws_2", &owner, &png()).await);
    let mine = id(&create_at(&app, "/mine", &owner, &png()).await);
    let deleted = created(&app, &owner, &png()).await;
    assert_eq!(delete(&app, &owner, &deleted).await.status, 204);
    // An image that the gate did not create.
    let url = format!("{}/api/v1/images/standard_upload", app.imgwire.url());
    let request = awc::Client::default().post(url).bearer_auth(SERVER_API_KEY);
    let mut response = request
        .send_json(&json!({ "file_name": "x" }))
        .await
        .unwrap();
    let foreign: Value = serde_json::from_slice(&response.body().await.unwrap()).unwrap();
    let foreign = foreign["image"]["id"].as_str().unwrap();

    let member = Token::of("user_2");
    let former = owner.clone().with("workspaces", json!(["ws_2"]));
    let asked = |app: &TestApp| {
        [Endpoint::Image, Endpoint::Images, Endpoint::Delete]
            .map(|endpoint| app.imgwire.asked_at(endpoint))
    };
    let before = asked(&app);
    let unknown = "00000000-0000-4000-8000-999999999999";
    let mut answers = Vec::new();
    for (token, route, image) in [
        (&member, WORKSPACE, &*theirs),
        (&member, WORKSPACE, &*mine),
        (&member, WORKSPACE, &*deleted),
        (&member, WORKSPACE, foreign),
        (&member, WORKSPACE, unknown),
        (&member, WORKSPACE, "standard_uploads"),
        (&owner, WORKSPACE, &*theirs),
        (&owner, WORKSPACE, &*mine),
        (&owner, WORKSPACE, &*deleted),
        (&owner, "/imgwire/ws_2", &*ours),
        (&owner, "/mine", &*ours),
        (&owner, "/mine", &*theirs),
        (&member, "/mine", &*mine),
        // A workspace of others.
        (&member, "/imgwire/ws_2", &*theirs),
        (&member, "/imgwire/ws_9", unknown),
        // An owner who is no member any more.
        (&former, WORKSPACE, &*ours),
    ] {
        for method in [Method::GET, Method::DELETE] {
            let answer = send(&app, method, &format!("{route}{IMAGES}{image}"), token).await;
            answer.assert_error(404, "not_found");
            answers.push(answer);
        }
    }
    // They do not differ, so that nothing can be learned from them.
    for answer in &answers {
        assert_eq!(answer.json["message"], "there is no such image");
    }
    for (token, route) in [(&member, "/imgwire/ws_2"), (&former, WORKSPACE)] {
        let answer = send(&app, Method::GET, &format!("{route}{IMAGES}"), token).await;
        answer.assert_error(404, "not_found");
    }
    assert_eq!(asked(&app), before);
    for path in [
        &*format!("{WORKSPACE}{IMAGES}{ours}"),
        &*format!("{WORKSPACE}{IMAGES}"),
    ] {
        let answer = app.request(Method::GET, path).send().await;
        answer.assert_error(401, "not_signed_in");
    }
    assert_eq!(asked(&app), before);
}

#[actix_web::test]
async fn a_404_that_does_not_come_from_imgwire_is_a_failure() {
    let app = gate().imgwire("retries", 0).start().await;
    let token = Token::of("user_1");
    let image = created(&app, &token, &png()).await;
    let page = Misbehaviour::Status(404, None);
    // The emulator's own body names a detail, as Imgwire's does.
    app.imgwire.misbehave_next_at(Endpoint::Image, [page]);
    show(&app, &token, &image)
        .await
        .assert_error(404, "not_found");
    for failure in [
        Misbehaviour::Status(500, None),
        Misbehaviour::Body("<html>".to_owned()),
        Misbehaviour::Body(json!({ "id": "another", "status": "READY" }).to_string()),
        Misbehaviour::Refuse(ErrorType::ResourceNotAuthorized),
    ] {
        app.imgwire
            .misbehave_next_at(Endpoint::Image, [failure.clone(), failure]);
        show(&app, &token, &image)
            .await
            .assert_error(500, "imgwire_failed");
        list(&app, &token, "")
            .await
            .assert_error(500, "imgwire_failed");
    }
    assert_eq!(show(&app, &token, &image).await.status, 200);
}

#[actix_web::test]
async fn only_configured_metadata_and_no_exif_data_are_shown() {
    let route = upload_route(ROUTE, ["signed-in", "member"])
        .metadata(json!({ "owner": "subject.id" }))
        .client_metadata(["alt"]);
    let app = gate().route_with(route).start().await;
    let token = Token::of("user_1");
    let body = with(png(), &json!({ "custom_metadata": { "alt": "x" } }));
    let image = created(&app, &token, &body).await;
    let mut described = app.imgwire.images(ENVIRONMENT)[0].clone();
    described["exif_data"] = json!({ "GPSLatitude": [52, 31], "Artist": "Ada" });
    described["custom_metadata"]["internal"] = json!("secret");
    described["cost"] = json!(7);
    let reply = Misbehaviour::Body(described.to_string());
    app.imgwire
        .misbehave_next_at(Endpoint::Image, [reply.clone(), reply]);
    let shown = show(&app, &token, &image).await.json;
    let listed = list(&app, &token, "").await.json[0].clone();
    for image in [shown, listed] {
        assert_eq!(image["exif_data"], json!({}));
        assert_eq!(
            image["custom_metadata"],
            json!({ "alt": "x", "owner": "user_1" })
        );
        assert_eq!(image.get("cost"), None);
        assert_eq!(image["original_filename"], "me.png");
    }
}

#[actix_web::test]
async fn an_image_is_deleted_by_its_owner_or_by_a_role_that_may() {
    let member = workspace_member()
        .claim("teams")
        .set("roles", ["owner", "admin", "editor"]);
    let route = upload_route(ROUTE, ["signed-in", "member"]).delete_roles(["owner", "admin"]);
    let app = Gate::bare()
        .policy("signed-in", signed_in(["app"]))
        .policy("member", member)
        .route_with(route)
        .start()
        .await;
    let of = |user: &str, role: &str| {
        Token::of(user).with("teams", json!([{ "id": "ws_1", "role": role }]))
    };
    let owner = of("user_1", "editor");
    for (deleting, status) in [
        (&of("user_2", "editor"), 404),
        (&of("user_2", "viewer"), 404),
        (&of("user_1", "viewer"), 404),
        (&owner, 204),
        (&of("user_2", "owner"), 204),
        (&of("user_2", "admin"), 204),
    ] {
        let image = created(&app, &owner, &png()).await;
        let answer = delete(&app, deleting, &image).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let is_there = show(&app, &owner, &image).await.status == 200;
        assert_eq!(is_there, status == 404);
        let at_imgwire = app.imgwire.images(ENVIRONMENT);
        assert_eq!(
            at_imgwire.iter().any(|found| found["id"] == *image),
            is_there
        );
    }
}

#[actix_web::test]
async fn an_image_that_imgwire_does_not_delete_stays() {
    let app = gate().imgwire("retries", 0).start().await;
    let token = Token::of("user_1");
    let image = created(&app, &token, &png()).await;
    for failure in [
        Misbehaviour::Status(500, None),
        Misbehaviour::Close,
        Misbehaviour::Refuse(ErrorType::OperationNotAllowed),
    ] {
        app.imgwire.misbehave_at(Endpoint::Delete, Some(failure));
        delete(&app, &token, &image)
            .await
            .assert_error(500, "imgwire_failed");
        assert_eq!(show(&app, &token, &image).await.status, 200);
    }
    app.imgwire.misbehave_at(Endpoint::Delete, None);
    assert_eq!(delete(&app, &token, &image).await.status, 204);
}

#[actix_web::test]
async fn reads_lists_and_deletions_are_limited_together_per_user() {
    let reads = json!({ "limit": 4, "period": "1h" });
    let app = gate().server("reads", reads).start().await;
    let (token, other) = (Token::of("user_1"), Token::of("user_2"));
    let image = created(&app, &token, &png()).await;
    assert_eq!(show(&app, &token, &image).await.status, 200);
    assert_eq!(list(&app, &token, "").await.status, 200);
    show(&app, &token, "unknown")
        .await
        .assert_error(404, "not_found");
    assert_eq!(delete(&app, &token, &image).await.status, 204);
    let asked = app.imgwire.asked_at(Endpoint::Image);
    for _ in 0..2 {
        let answer = show(&app, &token, &image).await;
        answer.assert_error(429, "rate_limited");
        assert!(!answer.header("retry-after").is_empty());
        list(&app, &token, "")
            .await
            .assert_error(429, "rate_limited");
        delete(&app, &token, &image)
            .await
            .assert_error(429, "rate_limited");
    }
    assert_eq!(app.imgwire.asked_at(Endpoint::Image), asked);
    assert_eq!(list(&app, &other, "").await.status, 200);
    // Uploads have limits of their own.
    assert_eq!(create(&app, &token, &png()).await.status, 200);
}

#[actix_web::test]
async fn a_read_records_what_imgwire_found_out_about_the_file() {
    for (quarantine, state) in [(false, "ready"), (true, "quarantined")] {
        let app = gate().start().await;
        app.imgwire.change(|scenario| {
            scenario.quarantine = quarantine;
            scenario.processing_milliseconds = 0;
        });
        let token = Token::of("user_1");
        let answer = create(&app, &token, &png()).await;
        let image = id(&answer);
        let url = answer.json["upload_url"].as_str().unwrap();
        let gif = b"GIF89a\x01\0\x01\0\0\0\0".as_slice();
        let put = awc::Client::default().put(url).content_type("image/png");
        assert_eq!(put.send_body(gif).await.unwrap().status(), 200);
        let record = async || {
            let answer = app.manage(&format!("/images?image={image}")).await;
            answer.json["images"][0].clone()
        };
        assert_eq!(record().await["state"], "open");
        assert_eq!(show(&app, &token, &image).await.status, 200);
        eventually("the state", async || record().await["state"] == state).await;
        let record = record().await;
        let declared = json!({ "mimeType": "image/png", "size": 48_213 });
        assert_eq!(record["declared"], declared);
        let real = json!({ "mimeType": "image/gif", "size": gif.len() });
        assert_eq!(record["real"], real);
    }
}

#[actix_web::test]
async fn a_read_has_one_request_line_with_the_image() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&gate(), imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let client = awc::Client::default();
    let token = Token::of("user_1").sign();
    for (number, (workspace, image)) in [("ws_1", "im_1"), ("ws_2", "im_2")].into_iter().enumerate()
    {
        let url = format!("{}/imgwire/{workspace}{IMAGES}{image}", gate.url());
        let request = client.get(url).bearer_auth(&token);
        let request = request.insert_header(("x-request-id", format!("read-{number}")));
        assert_eq!(request.send().await.unwrap().status(), 404);
    }
    let at = format!("{}/imgwire/ws_1", gate.url());
    let created = client.post(format!("{at}{CREATE}")).bearer_auth(&token);
    let mut created = created.send_json(&png()).await.unwrap();
    let created: Value = created.json().await.unwrap();
    let image = created["image"]["id"].as_str().unwrap();
    for (id, url) in [
        ("shown", format!("{at}{IMAGES}{image}")),
        ("listed", format!("{at}{IMAGES}")),
    ] {
        let request = client.get(url).bearer_auth(&token);
        let request = request.insert_header(("x-request-id", id));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let line = |id: &str| {
        gate.lines()
            .into_iter()
            .find(|line| line["request_id"] == id)
    };
    eventually("the lines", async || line("listed").is_some()).await;
    for (id, attempts) in [
        ("shown", json!(1)),
        ("listed", json!(1)),
        ("read-0", Value::Null),
    ] {
        let line = line(id).unwrap();
        assert_eq!(line["upstream_attempts"], attempts, "{line}");
        assert_eq!(line["upstream_ms"].is_number(), attempts == 1, "{line}");
    }
    let (own, other) = (line("read-0").unwrap(), line("read-1").unwrap());
    for (line, workspace, image) in [(&own, "ws_1", "im_1"), (&other, "ws_2", "im_2")] {
        assert_eq!(line["code"], "not_found", "{line}");
        assert_eq!(line["status"], 404);
        assert_eq!(line["subject"], "user_1");
        assert_eq!(line["workspace"], workspace);
        assert_eq!(line["image_id"], image);
        assert_eq!(line["route"], ROUTE);
    }
    // The operator learns what the client does not.
    assert_eq!(own["policy"], Value::Null);
    assert_eq!(other["policy"], "member");
    assert!(other["reason"].is_string());
}
