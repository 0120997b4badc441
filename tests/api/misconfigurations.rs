//! Misconfigurations of Imgwire that `imgwire-gate doctor` names, each with its remedy.

use serde_json::{Value, json};

use crate::{
    doctor_setup::{BYPASS, Setup, doctor, protected, upload},
    emulator::OTHER_ENVIRONMENT,
    helpers::{
        Billing, CLIENT_KEY, ClientKey, CorsOrigin, ENVIRONMENT, Endpoint, ErrorType, Misbehaviour,
    },
    real_parts::free_port,
    service::{Reply, Service},
};

#[actix_web::test]
async fn unsigned_uploads_are_possible_and_the_probe_is_deleted() {
    let setup = Setup::unprotected();
    let report = setup.probe(&protected()).await;
    let part = "imgwire.client_key";
    report.assert(part, "failed", BYPASS, "allow_unsigned_upload");
    assert_eq!(report.alarms(), [part]);
    assert_eq!(setup.imgwire.asked_at(Endpoint::Upload), 1);
    assert_eq!(setup.imgwire.asked_at(Endpoint::Put), 0);
    assert_eq!(setup.imgwire.images(ENVIRONMENT), [Value::Null; 0]);

    // Text for people has the remedy below the point.
    let folder = setup.folder.path();
    let url = setup.imgwire.url();
    let (code, stdout, stderr) = doctor(&protected(), url, folder, &["--probe"], &[]).await;
    assert_eq!(code, 1);
    let mut lines = stdout.lines().skip_while(|line| !line.contains(BYPASS));
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("failed     imgwire.client_key"),
        "{stdout}"
    );
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("           remedy: turn off unsigned uploads"),
        "{stdout}"
    );
    assert_eq!(lines.next(), Some("6 ok, 1 failed"));
    assert_eq!(stderr, "imgwire-gate: 1 point failed\n");
}

#[actix_web::test]
async fn the_id_of_a_probe_that_cannot_be_deleted_is_printed() {
    let setup = Setup::unprotected();
    let fails = Misbehaviour::Status(500, None);
    setup.imgwire.misbehave_at(Endpoint::Delete, Some(fails));
    let report = setup.probe(&protected()).await;
    let images = setup.imgwire.images(ENVIRONMENT);
    let id = images[0]["id"].as_str().unwrap();
    report.assert(
        "imgwire.client_key",
        "failed",
        BYPASS,
        &format!("delete the image {id}"),
    );
    let name = images[0]["original_filename"].as_str().unwrap();
    assert!(name.starts_with("imgwire-gate-doctor-"), "{name}");
    assert_eq!(images[0]["size_bytes"], 5 * 1024);
}

#[actix_web::test]
async fn environment_has_no_cors_origins() {
    let setup = Setup::new();
    setup
        .imgwire
        .change(|scenario| scenario.cors_origins.clear());
    let report = setup.probe(&protected()).await;
    let part = "imgwire.cors_origins";
    report.assert(part, "failed", "every website", "under CORS Origins");
    assert_eq!(report.alarms(), [part]);
}

#[actix_web::test]
async fn cors_origins_do_not_cover_allowed_origins() {
    let setup = Setup::new();
    // The origin that matters is on the second page.
    setup.imgwire.change(|scenario| {
        let other = |number: usize| CorsOrigin::new(&format!("other-{number}.example.org"));
        scenario.cors_origins = (0..100).map(other).collect();
        scenario
            .cors_origins
            .push(CorsOrigin::new("app.example.com"));
    });
    let allowed = [
        "https://app.example.com",
        "https://shop.example.com",
        "https://*.example.net",
    ];
    let gate = protected().server("allowed_origins", allowed);
    let report = setup.probe(&gate).await;
    let part = "imgwire.cors_origins";
    let refused = "allowed_origins`: https://shop.example.com, https://*.example.net";
    report.assert(part, "failed", refused, "`allowed_origins` in [server]");
    assert_eq!(report.alarms(), [part]);

    // Whether this port is matched is not documented.
    let gate = protected().server("allowed_origins", ["https://app.example.com:8443"]);
    let report = setup.probe(&gate).await;
    report.assert(
        part,
        "unknown",
        "https://app.example.com:8443",
        "with the port",
    );
}

#[actix_web::test]
async fn client_key_is_in_place_of_the_server_key() {
    let setup = Setup::new();
    let wrong = [("TEST_API_KEY", CLIENT_KEY)];
    let report = setup
        .run(&protected(), setup.imgwire.url(), &["--json"], &wrong)
        .await;
    assert_eq!(report.code, 2);
    let fault = "imgwire.api_key: is a Client Key; use a Server API Key (sk_...)";
    assert!(report.stderr.contains(fault), "{report:?}");
    assert_eq!(setup.imgwire.connections(), 0);

    // Imgwire knows what the name of a key does not show.
    setup
        .imgwire
        .change(|scenario| scenario.client_keys.push(ClientKey::new("sk_of_a_client")));
    let wrong = [("TEST_API_KEY", "sk_of_a_client")];
    let report = setup
        .run(&protected(), setup.imgwire.url(), &["--json"], &wrong)
        .await;
    let message = "may not list images, so it is not a Server API Key";
    report.assert(
        "imgwire.api_key",
        "failed",
        message,
        "create a Server API Key",
    );
}

#[actix_web::test]
async fn server_key_is_revoked() {
    let setup = Setup::new();
    setup
        .imgwire
        .change(|scenario| scenario.server_keys[0].revoked = true);
    let report = setup.probe(&protected()).await;
    let part = "imgwire.api_key";
    report.assert(
        part,
        "failed",
        "InvalidTokenError: Invalid API key",
        "create a Server API Key",
    );
    // What needs the key is not tried. In particular, no upload that could not be deleted.
    for part in [
        "imgwire.billing",
        "imgwire.cors_origins",
        "imgwire.client_key",
    ] {
        report.assert(
            part,
            "not tried",
            "needs imgwire.api_key",
            "fix imgwire.api_key first",
        );
    }
    assert_eq!(setup.imgwire.asked_at(Endpoint::Upload), 0);
}

#[actix_web::test]
async fn server_key_is_one_of_another_environment() {
    let setup = Setup::new();
    let gate = protected().imgwire("environment_id", OTHER_ENVIRONMENT);
    // Imgwire may ignore the environment that a request names.
    let report = setup.probe(&gate).await;
    let part = "imgwire.environment_id";
    let remedy = "correct `environment_id`";
    report.assert(part, "failed", "in another environment", remedy);
    assert_eq!(report.alarms(), [part]);
    // Or it may refuse the request.
    setup
        .imgwire
        .change(|scenario| scenario.undocumented.scoped_keys_check_environment = true);
    let report = setup.probe(&gate).await;
    let reason = "ResourceNotAuthorizedError";
    report.assert("imgwire.api_key", "unknown", reason, remedy);
    report.assert("imgwire.billing", "failed", reason, "Server API Key");

    let gate = protected().imgwire("environment_id", ENVIRONMENT);
    let report = setup.probe(&gate).await;
    assert_eq!(report.alarms(), [""; 0], "{report:?}");
    assert_eq!(report.state(part), "ok");
}

#[actix_web::test]
async fn plan_is_not_paid() {
    let setup = Setup::new();
    setup
        .imgwire
        .change(|scenario| scenario.billing = Billing::Unpaid);
    let report = setup.probe(&protected()).await;
    let reason = "PaymentRequiredError: The subscription is not active";
    report.assert(
        "imgwire.billing",
        "failed",
        reason,
        "Billing in Imgwire's dashboard",
    );
    assert_eq!(report.state("imgwire.api_key"), "ok");
    // The upload was refused for the plan, so nothing is known about tokens.
    assert_ne!(report.state("imgwire.client_key"), "failed");
}

#[actix_web::test]
async fn base_url_is_wrong() {
    let setup = Setup::new();
    let elsewhere = Service::start();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    for (base_url, message) in [
        (&elsewhere.url, "Imgwire's API is not there (status 404)"),
        (&nowhere, "cannot reach Imgwire"),
    ] {
        let report = setup
            .run(&protected(), base_url, &["--json", "--probe"], &[])
            .await;
        report.assert(
            "imgwire.base_url",
            "failed",
            message,
            "correct `base_url` in [imgwire]",
        );
        report.assert(
            "imgwire.api_key",
            "not tried",
            "needs imgwire.base_url",
            "first",
        );
    }
}

#[actix_web::test]
async fn web_page_is_in_place_of_imgwire() {
    let setup = Setup::new();
    let site = Service::start();
    let html = Reply::text("<!doctype html><title>Imgwire</title>");
    let login = Reply::status(302).header("location", "/login");
    for (reply, message) in [
        (
            html.clone().header("content-type", "text/html"),
            "a web page",
        ),
        (html.clone(), "a web page"),
        (
            Reply {
                status: 403,
                ..html
            },
            "a web page",
        ),
        (login, "a redirect"),
        (
            Reply::json(&json!({ "images": [] })),
            "is not there (status 200)",
        ),
        (Reply::status(503), "responds with an error (status 503)"),
    ] {
        site.answer("/api/v1/images/", reply);
        let report = setup
            .run(&protected(), &site.url, &["--json", "--probe"], &[])
            .await;
        report.assert(
            "imgwire.base_url",
            "failed",
            message,
            "`base_url` in [imgwire]",
        );
    }
    assert!(site.seen("/api/v1/images/standard_upload").is_empty());
}

#[actix_web::test]
async fn client_key_that_does_not_work_is_unknown() {
    let setup = Setup::new();
    let part = "imgwire.client_key";
    for missing in [ErrorType::OperationNotAllowed, ErrorType::InvalidToken] {
        setup.imgwire.change(|scenario| {
            scenario.undocumented.missing_token_error = missing;
            scenario.client_keys[0].revoked = true;
        });
        let report = setup.probe(&protected()).await;
        report.assert(
            part,
            "unknown",
            "does not accept the Client Key",
            "set `client_key` in [imgwire]",
        );
        setup
            .imgwire
            .change(|scenario| scenario.client_keys[0].revoked = false);
        assert_eq!(setup.probe(&protected()).await.state(part), "ok");
    }

    // An image of our environment cannot be read with a key of another one.
    upload(&setup.imgwire).await;
    assert_eq!(setup.probe(&protected()).await.state(part), "ok");
    setup.imgwire.change(|scenario| {
        scenario.environments.push(OTHER_ENVIRONMENT.to_owned());
        scenario.client_keys[0].environment = OTHER_ENVIRONMENT.to_owned();
    });
    let report = setup.probe(&protected()).await;
    report.assert(
        part,
        "unknown",
        "environment of the Server API Key",
        "set `client_key` in [imgwire]",
    );

    // A limit of the key says nothing about tokens.
    setup.imgwire.change(|scenario| {
        scenario.client_keys[0] = ClientKey {
            allowed_mime_types: Some(vec!["image/webp".to_owned()]),
            allow_unsigned_upload: true,
            ..ClientKey::new(CLIENT_KEY)
        };
    });
    let report = setup.probe(&protected()).await;
    report.assert(part, "unknown", "allowed_mime_types", "unsigned uploads");

    // The upload comes from a page that Imgwire accepts.
    setup.imgwire.change(|scenario| {
        scenario.client_keys[0].allowed_mime_types = None;
        scenario.undocumented.origin_required = true;
    });
    setup
        .probe(&protected())
        .await
        .assert(part, "failed", BYPASS, "");
}
