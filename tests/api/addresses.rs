//! The client's address, as limits count it.

use crate::{
    helpers::{ROUTE, Recipe, TestApp, eventually},
    process::{GateProcess, write_config},
};

const PER_IP: &str = r#"
    [policies.per-address]
    kind = "rate_limit"
    per = ["ip"]
    limit = 1
    period = "1h"
"#;

async fn behind(server: &str) -> TestApp {
    let recipe = Recipe {
        server: server.to_owned(),
        policies: format!("{}{PER_IP}", Recipe::default().policies),
        chain: r#"["per-address"]"#.into(),
        ..Recipe::default()
    };
    recipe.start().await
}

/// Whether two requests with these headers count as one client's.
async fn are_one(trusted_proxies: &str, one: &[(&str, &str)], other: &[(&str, &str)]) -> bool {
    are_one_with(&format!("trusted_proxies = {trusted_proxies}"), one, other).await
}

async fn are_one_with(server: &str, one: &[(&str, &str)], other: &[(&str, &str)]) -> bool {
    let app = behind(server).await;
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
        (true, "ÿ, 192.0.2.1"),
        (false, "192.0.2.1, 198.51.100.9"),
        (false, "192.0.2.1, nonsense"),
    ] {
        let other = [("x-forwarded-for", header)];
        assert_eq!(are_one(TRUSTED, &one, &other).await, same, "{header}");
    }
    for header in [
        "ÿ, for=192.0.2.1",
        "for=\"unfinished, for=192.0.2.1",
        "=;\", for=192.0.2.1",
    ] {
        let server = format!("trusted_proxies = {TRUSTED}\nclient_address = \"forwarded\"");
        let one = [("forwarded", "for=192.0.2.1")];
        let other = [("forwarded", header)];
        assert!(are_one_with(&server, &one, &other).await, "{header}");
        let other = [("forwarded", "for=198.51.100.9")];
        assert!(!are_one_with(&server, &one, &other).await);
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

/// A proxy writes one header, and passes on what the client wrote into the others.
#[actix_web::test]
async fn the_header_that_the_config_names_is_the_only_one_that_counts() {
    let written = [
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("x-real-ip", "192.0.2.1"),
    ];
    let of_another = [
        ("x-forwarded-for", "192.0.2.2"),
        ("forwarded", "for=192.0.2.2"),
        ("x-real-ip", "192.0.2.2"),
    ];
    for (index, (name, _)) in written.iter().enumerate() {
        let server = format!("trusted_proxies = {TRUSTED}\nclient_address = {name:?}");
        let by_proxy = written[index];
        for by_client in of_another {
            if by_client.0 == *name {
                continue;
            }
            let both = [by_proxy, by_client];
            assert!(are_one_with(&server, &[by_proxy], &both).await, "{both:?}");
            // Without its header the proxy itself is all that is known.
            assert!(
                are_one_with(&server, &[], &[by_client]).await,
                "{by_client:?}"
            );
        }
        let other = of_another[index];
        assert!(
            !are_one_with(&server, &[by_proxy], &[other]).await,
            "{name}"
        );
        let untrusted = format!("client_address = {name:?}");
        assert!(
            are_one_with(&untrusted, &[by_proxy], &[other]).await,
            "{name}"
        );
    }
}

#[actix_web::test]
async fn x_real_ip_is_one_address() {
    let server = format!("trusted_proxies = {TRUSTED}\nclient_address = \"x-real-ip\"");
    let one = [("x-real-ip", "192.0.2.1")];
    assert!(are_one_with(&server, &one, &[("x-real-ip", " 192.0.2.1:4711 ")]).await);
    for unreadable in [
        vec![("x-real-ip", "192.0.2.1, 192.0.2.2")],
        vec![("x-real-ip", "192.0.2.1"), ("x-real-ip", "192.0.2.2")],
        vec![("x-real-ip", "nonsense")],
    ] {
        // So the proxy is all that is known, as when it says nothing.
        assert!(
            are_one_with(&server, &[], &unreadable).await,
            "{unreadable:?}"
        );
    }
}

#[actix_web::test]
async fn the_log_warns_at_start_of_the_config_and_once_of_two_headers() {
    let recipe = Recipe {
        server: r#"trusted_proxies = ["0.0.0.0/0"]"#.into(),
        policies: format!("{}{PER_IP}", Recipe::default().policies),
        chain: r#"["per-address"]"#.into(),
        ..Recipe::default()
    };
    let (_folder, path) = write_config(&recipe, "https://api.imgwire.dev");
    let gate = GateProcess::start_with(&path, &[], "info", &[]).await;
    let lines = |text: &str| {
        let lines = gate.lines().into_iter();
        let warnings = lines.filter(|line| line["level"] == "WARN");
        warnings
            .filter(|line| line.to_string().contains(text))
            .count()
    };
    assert_eq!(lines("server.trusted_proxies"), 1);
    let ask = async |headers: &[(&str, &str)]| {
        let request = awc::Client::default().post(format!("{}{ROUTE}", gate.url()));
        let request = headers
            .iter()
            .fold(request, |request, header| request.insert_header(*header));
        request.send().await.unwrap();
    };
    ask(&[("x-forwarded-for", "192.0.2.1")]).await;
    ask(&[("forwarded", "for=192.0.2.2")]).await;
    assert_eq!(lines("client_address"), 0);
    for _ in 0..3 {
        ask(&[
            ("x-forwarded-for", "192.0.2.3"),
            ("forwarded", "for=192.0.2.4"),
        ])
        .await;
    }
    eventually("the warning", async || lines("client_address") > 0).await;
    assert_eq!(lines("client_address"), 1);
}
