//! What limits count by: no request moves the counter of a workspace that it is not known to be a member of.

use policies::{Dimension, Facts, Per, Purpose, RoutePath, UploadRequest, WorkspaceId, network};
use proptest::prelude::*;
use serde_json::json;

use crate::helpers::{member_of, request_from, user};

/// Identifiers that look like parts of a key.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "ws_1",
            "user_1",
            "%user:user_1",
            "user:user_1",
            "%25user:user_1",
            "%ip:0.0.0.1",
            "0.0.0.1",
            "%",
            "/",
            "ws_1/user_1",
            "%2F",
            "%25",
            "ws_1/%user:user_1",
        ])
        .prop_map(str::to_owned),
        "[%/a:u2F5-]{1,8}",
    ]
}

fn per() -> impl Strategy<Value = Per> {
    let others = prop::sample::subsequence(vec!["user", "ip", "purpose", "route"], 0..=4);
    (others, any::<prop::sample::Index>()).prop_map(|(mut dimensions, place)| {
        let place = place.index(dimensions.len() + 1);
        dimensions.insert(place, "workspace");
        serde_json::from_value(json!(dimensions)).unwrap()
    })
}

/// Who asks, as which member, and what the client names.
#[derive(Clone, Debug)]
struct Drawn {
    subject: Option<String>,
    member_of: Option<String>,
    named: Option<String>,
    purpose: Option<String>,
    ip: u32,
}

fn drawn(member_of: impl Strategy<Value = Option<String>>) -> impl Strategy<Value = Drawn> {
    let some = || prop::option::of(id());
    (some(), member_of, some(), some(), 0..3_u32).prop_map(
        |(subject, member_of, named, purpose, ip)| Drawn {
            subject,
            member_of,
            named,
            purpose,
            ip,
        },
    )
}

impl Drawn {
    fn key(&self, per: &Per) -> String {
        let mut request: UploadRequest = request_from(self.ip);
        request.workspace = self
            .named
            .as_deref()
            .map(|id| WorkspaceId::parse(id).unwrap());
        request.purpose = self
            .purpose
            .as_deref()
            .map(|text| Purpose::parse(text).unwrap());
        let subject = self.subject.as_deref().map(|id| user(id, &json!({})));
        let membership = self.member_of.as_deref().map(|id| member_of(id, None));
        per.key(&request, &Facts::new(subject, membership))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_request_without_a_membership_never_moves_the_counter_of_a_workspace(
        per in per(),
        stranger in drawn(Just(None)),
        member in drawn(id().prop_map(Some)),
    ) {
        prop_assert_ne!(stranger.key(&per), member.key(&per));
    }

    #[test]
    fn the_workspace_that_a_client_names_does_not_choose_the_counter(
        per in per(),
        one in drawn(prop::option::of(id())),
        named in prop::option::of(id()),
    ) {
        let other = Drawn { named, ..one.clone() };
        prop_assert_eq!(one.key(&per), other.key(&per));
    }

    #[test]
    fn each_workspace_and_user_has_a_counter_of_its_own(one in id(), other in id()) {
        let per: Per = serde_json::from_value(json!(["workspace", "user"])).unwrap();
        let of = |workspace: &str, user: &str| Drawn {
            subject: Some(user.to_owned()),
            member_of: Some(workspace.to_owned()),
            named: None,
            purpose: None,
            ip: 0,
        };
        prop_assert_eq!(of(&one, &other).key(&per) == of(&other, &one).key(&per), one == other);
    }

    #[test]
    fn users_and_addresses_without_a_membership_have_counters_of_their_own(one in drawn(Just(None)), other in drawn(Just(None))) {
        let per: Per = serde_json::from_value(json!(["workspace"])).unwrap();
        let who = |drawn: &Drawn| drawn.subject.clone().ok_or(drawn.ip);
        prop_assert_eq!(one.key(&per) == other.key(&per), who(&one) == who(&other));
    }
}

fn per_of(dimensions: &[&str]) -> Per {
    serde_json::from_value(json!(dimensions)).unwrap()
}

#[test]
fn a_key_has_one_part_for_each_dimension_in_the_written_order() {
    let mut request = request_from(7);
    request.purpose = Some(Purpose::parse("50%/a").unwrap());
    request.route = RoutePath::parse("/upload").unwrap();
    let facts = Facts::new(Some(user("u/1", &json!({}))), Some(member_of("%ws", None)));
    for (per, key) in [
        (&[][..], ""),
        (&["user"], "u%2F1"),
        (&["workspace"], "%25ws"),
        (&["ip"], "0.0.0.7"),
        (&["purpose"], "50%25%2Fa"),
        (&["route"], "%2Fupload"),
        (&["ip", "user", "workspace"], "0.0.0.7/u%2F1/%25ws"),
    ] {
        assert_eq!(per_of(per).key(&request, &facts), key, "{per:?}");
    }
    let unknown = Facts::default();
    let per = per_of(&["user", "workspace", "purpose"]);
    assert_eq!(per.key(&request_from(7), &unknown), "/%ip:0.0.0.7/");
    let known = Facts::new(Some(user("u/1", &json!({}))), None);
    assert_eq!(per.key(&request_from(7), &known), "u%2F1/%user:u%2F1/");
}

#[test]
fn an_ipv6_address_counts_as_its_network_of_64_bits() {
    for (address, counted) in [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
    ] {
        assert_eq!(network(address.parse().unwrap()).to_string(), counted);
    }
}

#[test]
fn a_dimension_is_named_at_most_once() {
    let read = |per| serde_json::from_value::<Per>(per);
    assert!(read(json!(["user", "ip", "user"])).is_err());
    assert!(read(json!(["user", "user"])).is_err());
    let per = read(json!(["user", "ip"])).unwrap();
    assert!(per.contains(Dimension::User) && per.contains(Dimension::Ip));
    assert!(!per.contains(Dimension::Workspace));
}

#[test]
fn what_a_limit_counts_by_reads_as_words() {
    for (per, words) in [
        (&["user"][..], "per user"),
        (&["ip", "purpose"], "per address and purpose"),
        (
            &["workspace", "user", "route"],
            "per workspace and user and route",
        ),
    ] {
        assert_eq!(per_of(per).to_string(), words);
    }
    assert!(!per_of(&[]).to_string().contains("per"));
}
