//! The client's address, as limits count it.

use crate::{
    helpers::{Gate, ROUTE, eventually, rate_limit},
    process::{GateProcess, write_config},
};

/// A gate that lets each address ask once per hour.
fn once_per_address() -> Gate {
    Gate::bare()
        .policy("per-address", rate_limit().per(["ip"]).limit(1))
        .chain(["per-address"])
}

/// The same behind trusted proxies that write the address into this header.
fn by_header(name: &str) -> Gate {
    once_per_address()
        .server("trusted_proxies", TRUSTED)
        .server("client_address", name)
}

/// Whether two requests with these headers count as one client's.
async fn are_one(trusted_proxies: &[&str], one: &[(&str, &str)], other: &[(&str, &str)]) -> bool {
    let gate = once_per_address().server("trusted_proxies", trusted_proxies);
    are_one_at(gate, one, other).await
}

async fn are_one_at(gate: Gate, one: &[(&str, &str)], other: &[(&str, &str)]) -> bool {
    let app = gate.start().await;
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

const TRUSTED: [&str; 3] = ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"];

#[actix_web::test]
async fn without_trusted_proxies_no_address_header_counts() {
    let one = [("x-forwarded-for", "192.0.2.1")];
    let other = [
        ("x-forwarded-for", "192.0.2.2"),
        ("forwarded", "for=192.0.2.3"),
    ];
    assert!(are_one(&[], &one, &other).await);
    assert!(are_one(&["10.0.0.0/8"], &one, &other).await);
}

#[actix_web::test]
async fn the_header_of_a_trusted_proxy_names_the_client() {
    let one = [("x-forwarded-for", "192.0.2.1")];
    assert!(!are_one(&TRUSTED, &one, &[("x-forwarded-for", "192.0.2.2")]).await);
    assert!(are_one(&TRUSTED, &one, &[("x-forwarded-for", "192.0.2.1:4711")]).await);
    assert!(
        are_one(
            &TRUSTED,
            &one,
            &[("forwarded", "for=192.0.2.1;proto=https")]
        )
        .await
    );
    assert!(are_one(&TRUSTED, &one, &[("x-forwarded-for", "::ffff:192.0.2.1")]).await);
}

#[actix_web::test]
async fn the_rightmost_address_that_is_not_a_trusted_proxy_is_the_client() {
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
        assert_eq!(are_one(&TRUSTED, &one, &other).await, same, "{header}");
    }
    for header in [
        "ÿ, for=192.0.2.1",
        "for=\"unfinished, for=192.0.2.1",
        "=;\", for=192.0.2.1",
    ] {
        let one = [("forwarded", "for=192.0.2.1")];
        let other = [("forwarded", header)];
        assert!(
            are_one_at(by_header("forwarded"), &one, &other).await,
            "{header}"
        );
        let other = [("forwarded", "for=198.51.100.9")];
        assert!(!are_one_at(by_header("forwarded"), &one, &other).await);
    }
    let lines = [
        ("x-forwarded-for", "198.51.100.9"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    assert!(are_one(&TRUSTED, &one, &lines).await);
    let both = [
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=198.51.100.9"),
    ];
    assert!(are_one(&TRUSTED, &one, &both).await);
}

#[actix_web::test]
async fn an_ipv6_client_counts_as_its_64_bit_network() {
    let one = [("x-forwarded-for", "2001:db8:1:2::1")];
    assert!(
        are_one(
            &TRUSTED,
            &one,
            &[("x-forwarded-for", "2001:db8:1:2:ffff::9")]
        )
        .await
    );
    assert!(
        are_one(
            &TRUSTED,
            &one,
            &[("x-forwarded-for", "[2001:db8:1:2::5]:443")]
        )
        .await
    );
    assert!(
        are_one(
            &TRUSTED,
            &one,
            &[("forwarded", "for=\"[2001:db8:1:2::7]:443\"")]
        )
        .await
    );
    assert!(!are_one(&TRUSTED, &one, &[("x-forwarded-for", "2001:db8:1:3::1")]).await);
}

/// A proxy sets one header and passes the client's other headers on.
#[actix_web::test]
async fn only_the_configured_address_header_counts() {
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
        let behind_proxy = || by_header(name);
        let by_proxy = written[index];
        for by_client in of_another {
            if by_client.0 == *name {
                continue;
            }
            let both = [by_proxy, by_client];
            assert!(
                are_one_at(behind_proxy(), &[by_proxy], &both).await,
                "{both:?}"
            );
            // Without its header only the proxy's own address is known.
            assert!(
                are_one_at(behind_proxy(), &[], &[by_client]).await,
                "{by_client:?}"
            );
        }
        let other = of_another[index];
        assert!(
            !are_one_at(behind_proxy(), &[by_proxy], &[other]).await,
            "{name}"
        );
        let untrusted = once_per_address().server("client_address", name);
        assert!(are_one_at(untrusted, &[by_proxy], &[other]).await, "{name}");
    }
}

#[actix_web::test]
async fn x_real_ip_must_hold_one_address() {
    let one = [("x-real-ip", "192.0.2.1")];
    let spaced = [("x-real-ip", " 192.0.2.1:4711 ")];
    assert!(are_one_at(by_header("x-real-ip"), &one, &spaced).await);
    for unreadable in [
        vec![("x-real-ip", "192.0.2.1, 192.0.2.2")],
        vec![("x-real-ip", "192.0.2.1"), ("x-real-ip", "192.0.2.2")],
        vec![("x-real-ip", "nonsense")],
    ] {
        // The proxy's own address counts, as it does without the header.
        assert!(
            are_one_at(by_header("x-real-ip"), &[], &unreadable).await,
            "{unreadable:?}"
        );
    }
}

#[actix_web::test]
async fn the_log_warns_once_of_trusting_everyone_and_once_of_two_address_headers() {
    let gate = once_per_address().server("trusted_proxies", ["0.0.0.0/0"]);
    let (_folder, path) = write_config(&gate, "https://api.imgwire.dev");
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
