//! Lists of images, and images that exist only in the records.

use actix_web::http::Method;

use crate::{
    helpers::{SERVER_API_KEY, TestApp, Token},
    images::{delete, ids, list, show},
    uploads::{IMAGES, WORKSPACE, created, gate, png},
};

/// Deletes an image past the gate.
async fn delete_at_imgwire(app: &TestApp, id: &str) {
    let url = format!("{}{IMAGES}{id}", app.imgwire.url());
    let request = awc::Client::default()
        .delete(url)
        .bearer_auth(SERVER_API_KEY);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[actix_web::test]
async fn a_list_has_the_newest_images_first_in_pages() {
    let app = gate().start().await;
    let token = Token::of("user_1");
    let mut images = Vec::new();
    for _ in 0..23 {
        images.insert(0, created(&app, &token, &png()).await);
    }
    for (query, range, page, limit, previous, next) in [
        ("", 0..20, "1", "20", "", "2"),
        ("?page=2", 20..23, "2", "20", "1", ""),
        ("?page=3", 23..23, "3", "20", "2", ""),
        ("?limit=10", 0..10, "1", "10", "", "2"),
        ("?limit=10&page=2", 10..20, "2", "10", "1", "3"),
        ("?page=3&limit=10", 20..23, "3", "10", "2", ""),
        ("?limit=1&page=23&sort=asc", 22..23, "23", "1", "22", ""),
        // As many as Imgwire's own API accepts.
        ("?limit=100", 0..20, "1", "20", "", "2"),
        ("?limit=21&page=2", 20..23, "2", "20", "1", ""),
        (
            "?page=18446744073709551615",
            23..23,
            "18446744073709551615",
            "20",
            "18446744073709551614",
            "",
        ),
    ] {
        let answer = list(&app, &token, query).await;
        assert_eq!(ids(&answer), images[range], "{query}");
        assert_eq!(answer.header("x-total-count"), "23");
        assert_eq!(answer.header("x-page"), page, "{query}");
        assert_eq!(answer.header("x-limit"), limit, "{query}");
        assert_eq!(answer.header("x-prev-page"), previous, "{query}");
        assert_eq!(answer.header("x-next-page"), next, "{query}");
        answer.assert_envelope();
    }
}

#[actix_web::test]
async fn a_page_that_cannot_be_is_refused() {
    let app = gate().start().await;
    let token = Token::of("user_1");
    for (query, message) in [
        (
            "?limit=101",
            "the parameter `limit` must be a whole number of at least 1 and at most 100, but it is \"101\"",
        ),
        (
            "?limit=0",
            "the parameter `limit` must be a whole number of at least 1 and at most 100, but it is \"0\"",
        ),
        (
            "?page=0",
            "the parameter `page` must be a whole number of at least 1, but it is \"0\"",
        ),
        (
            "?page=-1",
            "the parameter `page` must be a whole number of at least 1, but it is \"-1\"",
        ),
        (
            "?page=x",
            "the parameter `page` must be a whole number of at least 1, but it is \"x\"",
        ),
        (
            "?page=",
            "the parameter `page` must be a whole number of at least 1, but it is \"\"",
        ),
        ("?page=1&page=2", "the parameter `page` is there twice"),
    ] {
        let answer = list(&app, &token, query).await;
        answer.assert_error(400, "bad_request");
        assert_eq!(answer.json["message"], message, "{query}");
    }
}

#[actix_web::test]
async fn a_page_of_another_origin_can_read_the_headers_of_a_list() {
    let origin = "https://app.example.com";
    let app = gate().server("allowed_origins", [origin]).start().await;
    let request = app.request(Method::GET, &format!("{WORKSPACE}{IMAGES}"));
    let request = request
        .bearer(&Token::of("user_1").sign())
        .header("origin", origin);
    let answer = request.send().await;
    let exposed: Vec<_> = answer
        .header("access-control-expose-headers")
        .split(", ")
        .collect();
    for header in [
        "x-total-count",
        "x-page",
        "x-limit",
        "x-prev-page",
        "x-next-page",
        "x-request-id",
    ] {
        assert!(exposed.contains(&header), "{exposed:?}");
    }
}

#[actix_web::test]
async fn an_image_that_was_deleted_past_the_gate_is_unknown() {
    for shows_deleted in [false, true] {
        let app = gate().start().await;
        app.imgwire
            .change(|scenario| scenario.undocumented.read_shows_deleted = shows_deleted);
        let token = Token::of("user_1");
        let gone = created(&app, &token, &png()).await;
        let kept = created(&app, &token, &png()).await;
        delete_at_imgwire(&app, &gone).await;
        show(&app, &token, &gone)
            .await
            .assert_error(404, "not_found");
        assert_eq!(ids(&list(&app, &token, "").await), [&kept]);
        // It can be deleted, so that the gate forgets it, too.
        assert_eq!(delete(&app, &token, &gone).await.status, 204);
        delete(&app, &token, &gone)
            .await
            .assert_error(404, "not_found");
        assert_eq!(list(&app, &token, "").await.header("x-total-count"), "1");
    }
}
