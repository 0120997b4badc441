//! What `imgwire-gate doctor` concludes from the answers about a Client Key, and from answers that fail for a moment.

use serde_json::{Value, json};

use crate::{
    doctor_setup::{BYPASS, Report, Setup, protected, upload},
    emulator::OTHER_ENVIRONMENT,
    helpers::{
        CLIENT_KEY, ClientKey, ENVIRONMENT, Emulator, Endpoint, ErrorType, ListOrder, Misbehaviour,
        SERVER_API_KEY,
    },
    service::{Reply, Service},
};

const PART: &str = "imgwire.client_key";

/// How the message of a point ends that does not tell to which environment the Client Key belongs.
const NOT_PROVED: &str =
    "no image shows whether the Client Key belongs to the environment of the Server API Key";

fn message(report: &Report) -> &str {
    report.point(PART)["message"].as_str().unwrap()
}

async fn delete(imgwire: &Emulator, image: &Value) {
    let id = image["id"].as_str().unwrap();
    let url = format!("{}/api/v1/images/{id}", imgwire.url());
    let request = awc::Client::default()
        .delete(url)
        .bearer_auth(SERVER_API_KEY);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[actix_web::test]
async fn probe_in_another_environment_is_not_reported_as_deleted() {
    let setup = Setup::unprotected();
    setup.imgwire.change(|scenario| {
        scenario.environments.push(OTHER_ENVIRONMENT.to_owned());
        scenario.client_keys[0].environment = OTHER_ENVIRONMENT.to_owned();
        scenario.undocumented.not_authorized_status = 404;
    });
    let report = setup.probe(&protected()).await;
    let images = setup.imgwire.images(OTHER_ENVIRONMENT);
    let id = images[0]["id"].as_str().unwrap();
    let remedy = format!("delete the image {id}");
    report.assert(PART, "failed", BYPASS, &remedy);
    let problem = format!("image {id}, could not be deleted: not found with this Server API Key");
    assert!(message(&report).contains(&problem), "{report:?}");
}

#[actix_web::test]
async fn probe_whose_answer_is_lost_is_deleted() {
    let setup = Setup::unprotected();
    // The image is on the last page of three.
    setup
        .imgwire
        .change(|scenario| scenario.undocumented.list_order = ListOrder::OldestFirst);
    for _ in 0..200 {
        upload(&setup.imgwire).await;
    }
    let breaks_off = Misbehaviour::BreakOff;
    setup
        .imgwire
        .misbehave_at(Endpoint::Upload, Some(breaks_off));
    for order in [ListOrder::OldestFirst, ListOrder::NewestFirst] {
        setup
            .imgwire
            .change(|scenario| scenario.undocumented.list_order = order);
        let report = setup.probe(&protected()).await;
        report.assert(PART, "failed", BYPASS, "allow_unsigned_upload");
        assert!(message(&report).contains("is deleted"), "{report:?}");
        assert_eq!(setup.imgwire.images(ENVIRONMENT).len(), 200);
    }
}

#[actix_web::test]
async fn file_name_of_a_probe_that_may_exist_is_printed() {
    let setup = Setup::new();
    for lost in [
        Misbehaviour::Close,
        Misbehaviour::Status(502, None),
        Misbehaviour::Body("x".repeat(2 << 20)),
    ] {
        setup.imgwire.misbehave_at(Endpoint::Upload, Some(lost));
        let report = setup.probe(&protected()).await;
        let named = "file name imgwire-gate-doctor-";
        report.assert(PART, "unknown", named, named);
    }
    let no_id = Misbehaviour::Body("{}".to_owned());
    setup.imgwire.misbehave_at(Endpoint::Upload, Some(no_id));
    let report = setup.probe(&protected()).await;
    let named = "file name imgwire-gate-doctor-";
    report.assert(PART, "failed", named, named);
}

#[actix_web::test]
async fn refusal_for_a_limit_is_no_evidence() {
    let setup = Setup::unprotected();
    upload(&setup.imgwire).await;
    setup
        .imgwire
        .change(|scenario| scenario.undocumented.limit_error = ErrorType::InvalidToken);
    let key = || ClientKey {
        allow_unsigned_upload: true,
        ..ClientKey::new(CLIENT_KEY)
    };
    for (limited, limit) in [
        (
            ClientKey {
                maximum_upload_bytes: Some(1024),
                ..key()
            },
            "maximum_upload_bytes",
        ),
        (
            ClientKey {
                allowed_mime_types: Some(vec!["image/webp".to_owned()]),
                ..key()
            },
            "allowed_mime_types",
        ),
        (
            ClientKey {
                maximum_pending_uploads: Some(0),
                ..key()
            },
            "maximum_pending_uploads",
        ),
    ] {
        setup
            .imgwire
            .change(|scenario| scenario.client_keys[0] = limited);
        let report = setup.probe(&protected()).await;
        report.assert(PART, "unknown", limit, "unsigned uploads");
    }

    // Without the CORS origins, the probe comes from no page.
    setup.imgwire.change(|scenario| {
        scenario.client_keys[0] = key();
        scenario.undocumented.origin_required = true;
    });
    let fails = Misbehaviour::Status(500, None);
    setup
        .imgwire
        .misbehave_at(Endpoint::CorsOrigins, Some(fails));
    let report = setup.probe(&protected()).await;
    report.assert(PART, "unknown", "another reason", "unsigned uploads");
    assert!(
        message(&report).to_lowercase().contains("origin"),
        "{report:?}"
    );
}

#[actix_web::test]
async fn refusal_counts_in_an_empty_environment_if_it_names_the_missing_token() {
    let setup = Setup::new();
    let imgwire = Service::start();
    imgwire.answer("/api/v1/images/", Reply::json(&json!([])));
    let token = json!({ "token": "ut_1", "environment_id": ENVIRONMENT });
    imgwire.answer("/api/v1/images/token", Reply::json(&token));
    let origins = json!([{ "pattern": "*.example.com" }]);
    imgwire.answer("/api/v1/cors_origins/", Reply::json(&origins));
    for (detail, state) in [
        ("An upload token is required", "ok"),
        (
            "too many pending uploads; use another upload token",
            "unknown",
        ),
        ("Invalid token", "unknown"),
    ] {
        let body = json!({ "detail": detail, "error_type": "InvalidTokenError" });
        let refused = Reply {
            status: 401,
            ..Reply::json(&body)
        };
        imgwire.answer("/api/v1/images/standard_upload", refused);
        let report = setup
            .run(&protected(), &imgwire.url, &["--json", "--probe"], &[])
            .await;
        assert_eq!(report.state(PART), state, "{report:?}");
        let is_proved = !message(&report).contains(NOT_PROVED);
        assert_eq!(is_proved, state != "ok", "{report:?}");
    }
}

#[actix_web::test]
async fn deleted_images_prove_nothing_about_a_client_key() {
    let setup = Setup::new();
    setup
        .imgwire
        .change(|scenario| scenario.undocumented.list_shows_deleted = true);
    for _ in 0..2 {
        upload(&setup.imgwire).await;
    }
    let images = setup.imgwire.images(ENVIRONMENT);
    // The list begins with a deleted image, in either order.
    for (image, order) in [(0, ListOrder::OldestFirst), (1, ListOrder::NewestFirst)] {
        setup
            .imgwire
            .change(|scenario| scenario.undocumented.list_order = order);
        delete(&setup.imgwire, &images[image]).await;
        for read_shows_deleted in [false, true] {
            setup.imgwire.change(|scenario| {
                scenario.undocumented.read_shows_deleted = read_shows_deleted;
            });
            let report = setup.probe(&protected()).await;
            assert_eq!(report.alarms(), [""; 0], "{report:?}");
            // After the second deletion no image is left.
            let is_proved = !message(&report).contains(NOT_PROVED);
            assert_eq!(is_proved, image == 0, "{report:?}");
        }
    }
}

#[actix_web::test]
async fn environment_of_the_created_token_is_printed() {
    let setup = Setup::new();
    let report = setup.probe(&protected()).await;
    let billing = report.point("imgwire.billing");
    let environment = format!("in the environment {ENVIRONMENT}");
    assert!(
        billing["message"].as_str().unwrap().contains(&environment),
        "{billing}"
    );
}

#[actix_web::test]
async fn rate_limit_of_imgwire_is_unknown() {
    let setup = Setup::new();
    let limited = || Some(Misbehaviour::Status(429, None));
    setup.imgwire.misbehave_at(Endpoint::Token, limited());
    setup.imgwire.misbehave_at(Endpoint::CorsOrigins, limited());
    setup.imgwire.misbehave_at(Endpoint::Upload, limited());
    let report = setup.probe(&protected()).await;
    assert_eq!(report.code, 0);
    report.assert(
        "imgwire.billing",
        "unknown",
        "status 429",
        "run it again later",
    );
    report.assert("imgwire.cors_origins", "unknown", "status 429", "");
    report.assert(PART, "unknown", "status 429", "");
    setup.imgwire.misbehave_at(Endpoint::Images, limited());
    let report = setup.probe(&protected()).await;
    report.assert(
        "imgwire.base_url",
        "unknown",
        "status 429",
        "run it again later",
    );
    assert_eq!(report.code, 0);
}

#[actix_web::test]
async fn call_that_fails_for_a_moment_is_repeated() {
    let setup = Setup::new();
    let fails = || Misbehaviour::Status(503, None);
    for once in [fails(), Misbehaviour::Close, Misbehaviour::Hang] {
        setup.imgwire.misbehave_next([once]);
        let gate = protected().imgwire("timeout", "2s");
        let report = setup.probe(&gate).await;
        assert_eq!(report.alarms(), [""; 0], "{report:?}");
    }
    setup.imgwire.misbehave_next([fails(), fails()]);
    let report = setup.probe(&protected()).await;
    assert_eq!(report.alarms(), ["imgwire.billing"]);
    assert_eq!(setup.imgwire.asked_at(Endpoint::Token), 8);

    let before = setup.imgwire.asked_at(Endpoint::Images);
    setup.imgwire.misbehave_at(Endpoint::Images, Some(fails()));
    let report = setup.probe(&protected()).await;
    report.assert("imgwire.base_url", "failed", "status 503", "status page");
    assert_eq!(setup.imgwire.asked_at(Endpoint::Images), before + 2);
}
