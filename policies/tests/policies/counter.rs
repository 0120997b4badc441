//! What limits count by: no request moves the counter of a workspace that it is not known to be a member of.

use std::sync::Arc;

use policies::{
    Facts, IdentityName, Membership, Per, Purpose, Subject, SubjectId, UploadRequest, WorkspaceId,
};
use proptest::prelude::*;
use serde_json::json;

use crate::helpers::request_from;

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
        let subject = self.subject.as_deref().map(|id| {
            Arc::new(Subject {
                id: SubjectId::parse(id).unwrap(),
                identity: IdentityName::parse("app").unwrap(),
                session: false,
                claims: Default::default(),
                expires_at: None,
            })
        });
        let membership = self.member_of.as_deref().map(|id| Membership {
            workspace: WorkspaceId::parse(id).unwrap(),
            role: None,
        });
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
    fn what_a_client_names_does_not_change_where_it_counts(
        per in per(),
        one in drawn(prop::option::of(id())),
        named in prop::option::of(id()),
    ) {
        let other = Drawn { named, ..one.clone() };
        prop_assert_eq!(one.key(&per), other.key(&per));
    }

    #[test]
    fn workspaces_have_counters_of_their_own(one in id(), other in id()) {
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
    fn strangers_count_apart(one in drawn(Just(None)), other in drawn(Just(None))) {
        let per: Per = serde_json::from_value(json!(["workspace"])).unwrap();
        let who = |drawn: &Drawn| drawn.subject.clone().ok_or(drawn.ip);
        prop_assert_eq!(one.key(&per) == other.key(&per), who(&one) == who(&other));
    }
}
