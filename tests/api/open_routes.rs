//! Routes on which requests without sign-in may get tokens.

use crate::{
    helpers::{Entry, Gate, rate_limit, signed_in, workspace_member},
    impossible_values::load,
};

#[test]
fn a_route_that_may_give_tokens_without_sign_in_is_a_warning() {
    let accept = || signed_in(["app"]);
    let when = |condition: &str| accept().set("when", condition);
    let member = || workspace_member().claim("workspaces");
    let with = |policies: Vec<(&str, Entry)>| {
        let chain: Vec<_> = policies.iter().map(|(name, _)| *name).collect();
        let gate = policies
            .into_iter()
            .fold(Gate::bare(), |gate, (name, policy)| {
                gate.policy(name, policy)
            });
        load(&gate.chain(chain)).unwrap()
    };
    let observed = "`a` has `mode = \"observe\"`";
    let conditional = "`a` has a `when`";
    for (policies, cause) in [
        (vec![("a", accept().observe())], observed),
        (vec![("a", when("has(request.purpose)"))], conditional),
        (
            vec![("a", when("has(request.purpose)").observe())],
            observed,
        ),
        (
            vec![("a", accept().observe()), ("b", accept().observe())],
            "`a` has `mode = \"observe\"` and `b` has `mode = \"observe\"`",
        ),
        (
            vec![
                ("a", when("has(request.purpose)")),
                ("b", accept().observe()),
            ],
            "`a` has a `when` and `b` has `mode = \"observe\"`",
        ),
        (
            vec![("a", accept().observe()), ("b", member().observe())],
            observed,
        ),
        (
            vec![
                ("a", accept().observe()),
                ("b", member().set("when", "has(request.purpose)")),
            ],
            observed,
        ),
        (
            vec![
                ("a", accept().observe()),
                ("b", rate_limit().per(["user"]).limit(1)),
            ],
            observed,
        ),
    ] {
        let warnings = with(policies);
        let [warning] = &warnings[..] else {
            panic!("not one warning: {warnings:?}")
        };
        let expected = format!(
            "routes[0].policies: requests without sign-in may get tokens, because {cause}; also list"
        );
        assert!(warning.contains(&expected), "{warning}");
    }
    for policies in [
        vec![("a", accept())],
        vec![("a", accept().observe()), ("b", accept())],
        // One or the other runs.
        vec![
            ("a", when("request.purpose == 'a'")),
            ("b", when("request.purpose != 'a'")),
        ],
        // Nobody without a user is a member.
        vec![("a", accept().observe()), ("b", member())],
        // Nothing here pretends to sign users in.
        vec![("a", rate_limit().per(["ip"]).limit(1))],
    ] {
        assert_eq!(with(policies), [""; 0]);
    }
}

#[actix_web::test]
async fn without_sign_in_a_route_gives_tokens_exactly_if_the_warning_says_so() {
    for (policy, other, status) in [
        (signed_in(["app"]).observe(), None, 200),
        (
            signed_in(["app"]).set("when", "has(request.file)"),
            None,
            200,
        ),
        (
            signed_in(["app"]).observe(),
            Some(workspace_member().claim("workspaces")),
            403,
        ),
    ] {
        let gate = Gate::bare().policy("a", policy);
        let gate = match other {
            None => gate.chain(["a"]),
            Some(other) => gate.policy("b", other).chain(["a", "b"]),
        };
        let warnings = load(&gate).unwrap().len();
        let gate = gate.start().await;
        let request = gate.ask().header("x-workspace-id", "ws_1");
        assert_eq!(request.send().await.status, status);
        assert_eq!(warnings, usize::from(status == 200));
    }
}
