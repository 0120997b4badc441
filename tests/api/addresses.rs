//! The client's address, as limits count it.

use crate::helpers::{Recipe, TestApp};

const PER_IP: &str = r#"
    [policies.per-address]
    kind = "rate_limit"
    per = ["ip"]
    limit = 1
    period = "1h"
"#;

async fn behind(trusted_proxies: &str) -> TestApp {
    let recipe = Recipe {
        server: format!("trusted_proxies = {trusted_proxies}"),
        policies: format!("{}{PER_IP}", Recipe::default().policies),
        chain: r#"["per-address"]"#.into(),
        ..Recipe::default()
    };
    recipe.start().await
}

/// Whether two requests with these headers count as one client's.
async fn are_one(trusted_proxies: &str, one: &[(&str, &str)], other: &[(&str, &str)]) -> bool {
    let app = behind(trusted_proxies).await;
    let send = async |headers: &[(&str, &str)]| {
        let request = app.ask();
        headers
            .iter()
            .fold(request, |request, (name, value)| {
                request.header(name, value)
            })
            .send()
            .await
    };
    send(one).await.assert_token();
    let answer = send(other).await;
    if answer.status != 200 {
        answer.assert_error(429, "rate_limited");
    }
    answer.status != 200
}

const TRUSTED: &str = r#"["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]"#;

#[actix_web::test]
async fn nobody_is_believed_by_default() {
    let one = [("x-forwarded-for", "192.0.2.1")];
    let other = [
        ("x-forwarded-for", "192.0.2.2"),
        ("forwarded", "for=192.0.2.3"),
    ];
    assert!(are_one("[]", &one, &other).await);
    assert!(are_one(r#"["10.0.0.0/8"]"#, &one, &other).await);
}

#[actix_web::test]
async fn a_trusted_proxy_tells_clients_apart() {
    let one = [("x-forwarded-for", "192.0.2.1")];
    assert!(!are_one(TRUSTED, &one, &[("x-forwarded-for", "192.0.2.2")]).await);
    assert!(are_one(TRUSTED, &one, &[("x-forwarded-for", "192.0.2.1:4711")]).await);
    assert!(are_one(TRUSTED, &one, &[("forwarded", "for=192.0.2.1;proto=https")]).await);
    assert!(are_one(TRUSTED, &one, &[("x-forwarded-for", "::ffff:192.0.2.1")]).await);
}

#[actix_web::test]
async fn the_rightmost_address_that_is_no_trusted_proxys_is_the_clients() {
    let one = [("x-forwarded-for", "192.0.2.1")];
    for (same, header) in [
        (true, "198.51.100.9, 192.0.2.1"),
        (true, "198.51.100.9, 192.0.2.1, 10.1.2.3"),
        (true, "nonsense, 192.0.2.1, 10.1.2.3, fd00::1"),
        (false, "192.0.2.1, 198.51.100.9"),
        (false, "192.0.2.1, nonsense"),
    ] {
        let other = [("x-forwarded-for", header)];
        assert_eq!(are_one(TRUSTED, &one, &other).await, same, "{header}");
    }
    let lines = [
        ("x-forwarded-for", "198.51.100.9"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    assert!(are_one(TRUSTED, &one, &lines).await);
    let both = [
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=198.51.100.9"),
    ];
    assert!(are_one(TRUSTED, &one, &both).await);
}

#[actix_web::test]
async fn an_ipv6_client_is_its_64_bit_network() {
    let one = [("x-forwarded-for", "2001:db8:1:2::1")];
    assert!(
        are_one(
            TRUSTED,
            &one,
            &[("x-forwarded-for", "2001:db8:1:2:ffff::9")]
        )
        .await
    );
    assert!(
        are_one(
            TRUSTED,
            &one,
            &[("x-forwarded-for", "[2001:db8:1:2::5]:443")]
        )
        .await
    );
    assert!(
        are_one(
            TRUSTED,
            &one,
            &[("forwarded", "for=\"[2001:db8:1:2::7]:443\"")]
        )
        .await
    );
    assert!(!are_one(TRUSTED, &one, &[("x-forwarded-for", "2001:db8:1:3::1")]).await);
}
