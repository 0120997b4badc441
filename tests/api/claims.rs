//! Memberships that a claim lists: its shapes, its name, and the names of its members.

use serde_json::{Value, json};

use crate::helpers::{Answer, Gate, TestApp, Token};

/// A gate that requires owners or editors of a workspace, by this policy.
fn with_member(member: &str) -> Gate {
    Gate::accepting(["app"])
        .policy("member", member)
        .set("policies.member.kind", "workspace_member")
        .set("policies.member.roles", ["owner", "editor"])
        .chain(["signed-in", "member"])
}

#[actix_web::test]
async fn every_supported_shape_of_memberships_is_understood() {
    let app = with_member("claim = \"workspaces\"").start().await;
    for (workspaces, asked, code) in [
        (json!([{ "id": "ws_1", "role": "editor" }]), "ws_1", ""),
        (
            json!([{ "id": "ws_1", "role": "viewer" }, { "id": "ws_1", "role": "owner" }]),
            "ws_1",
            "",
        ),
        (json!({ "ws_1": "owner", "ws_2": "viewer" }), "ws_1", ""),
        (
            json!({ "ws_1": "owner", "ws_2": "viewer" }),
            "ws_2",
            "workspace_forbidden",
        ),
        (json!(["ws_1"]), "ws_1", "workspace_forbidden"),
        (json!([{ "id": "ws_1" }]), "ws_1", "workspace_forbidden"),
        // A role may be a list.
        (
            json!([{ "id": "ws_1", "role": ["viewer", "editor"] }]),
            "ws_1",
            "",
        ),
        (json!({ "ws_1": ["viewer", 7, "owner"] }), "ws_1", ""),
        (
            json!([{ "id": "ws_1", "role": ["viewer", ["editor"], 7] }]),
            "ws_1",
            "workspace_forbidden",
        ),
        (json!({ "ws_1": [] }), "ws_1", "workspace_forbidden"),
        // Integers are ids.
        (json!([{ "id": 1, "role": "editor" }]), "1", ""),
        (
            json!([{ "id": 1, "role": "editor" }]),
            "01",
            "workspace_forbidden",
        ),
        (
            json!([{ "id": 1.0, "role": "editor" }]),
            "1.0",
            "workspace_forbidden",
        ),
        // An object with an id is one workspace, whatever its other members are.
        (json!({ "id": "ws_1", "role": "editor" }), "ws_1", ""),
        (
            json!({ "id": 7, "role": ["owner"], "slg": "acme" }),
            "7",
            "",
        ),
        (
            json!({ "id": "owner", "rol": "owner" }),
            "id",
            "workspace_forbidden",
        ),
        (
            json!({ "id": "ws_1", "rol": "owner" }),
            "rol",
            "workspace_forbidden",
        ),
        (
            json!({ "id": "ws_1", "rol": "owner" }),
            "ws_1",
            "workspace_forbidden",
        ),
        (
            json!({ "id": null, "rol": "owner" }),
            "rol",
            "workspace_forbidden",
        ),
        (json!("ws_1"), "ws_1", "workspace_forbidden"),
        (json!({ "ws_1": true }), "ws_1", "workspace_forbidden"),
        // A map may have objects as values. An id in the object counts, not the key.
        (json!({ "ws_1": { "role": "owner" } }), "ws_1", ""),
        (json!({ "ws_1": { "role": ["viewer", "owner"] } }), "", ""),
        (
            json!({ "ws_1": { "role": "viewer" }, "ws_2": { "role": "owner" } }),
            "ws_1",
            "workspace_forbidden",
        ),
        (json!({ "ws_1": {} }), "ws_1", "workspace_forbidden"),
        (json!({ "acme": { "id": "42", "role": "owner" } }), "42", ""),
        (json!({ "acme": { "id": 42, "role": "owner" } }), "42", ""),
        (
            json!({ "acme": { "id": "42", "role": "owner" } }),
            "acme",
            "workspace_forbidden",
        ),
        (
            json!({ "acme": { "id": null, "role": "owner" } }),
            "acme",
            "workspace_forbidden",
        ),
        (
            json!({ "acme": { "id": "42", "role": "owner" }, "ws_1": "owner" }),
            "ws_1",
            "",
        ),
        (json!([["ws_1", "owner"]]), "ws_1", "workspace_forbidden"),
        (json!(null), "ws_1", "workspace_forbidden"),
        (json!({ "ws_1": "owner" }), "", ""),
        (json!([{ "id": "ws_1", "role": "owner" }]), "", ""),
        (json!({ "id": 7, "role": "owner" }), "", ""),
        (
            json!({ "ws_1": "owner", "ws_2": "owner" }),
            "",
            "workspace_required",
        ),
        (json!([]), "", "workspace_required"),
        (json!({}), "", "workspace_required"),
    ] {
        let token = Token::of("user_1").with("workspaces", workspaces.clone());
        let body = if asked.is_empty() {
            json!({})
        } else {
            json!({ "workspace": asked })
        };
        let answer = app.ask().bearer(&token.sign()).json(&body).await;
        assert_eq!(answer.code(), code, "{workspaces} {asked}");
        assert_eq!(
            answer.status.as_u16(),
            if code.is_empty() { 200 } else { 403 }
        );
    }
}

/// Asks for the workspace `asked` as a user with these claims.
async fn ask_with(member: &str, claims: &Value, asked: &Value) -> Answer {
    let app = with_member(member).start().await;
    let claims = claims.as_object().unwrap().iter();
    let none = Token::of("user_1").without("workspaces");
    let token = claims.fold(none, |token, (claim, value)| {
        token.with(claim, value.clone())
    });
    let body = json!({ "workspace": asked });
    app.ask().bearer(&token.sign()).json(&body).await
}

#[actix_web::test]
async fn claims_are_found_by_name_or_pointer_and_their_members_by_key() {
    let nothing = json!(null);
    // The session token of an identity provider that names the one active organisation.
    let active = json!({ "o": { "id": "org_1", "rol": "owner", "slg": "acme" } });
    let two = json!({ "o": { "id": ["org_1", "org_2"], "rol": "owner" } });
    let named =
        json!({ "https://app.example.com/orgs": [{ "org": 7, "as": ["viewer", "owner"] }] });
    let slash = json!({ "/orgs": { "org_1": "owner" }, "a/b": { "c~d": "org_1" }, "m": { "n": ["x", "owner"] } });
    let organizations = json!({
        "orgs": [
            { "organizationId": "org_1", "role": "viewer" },
            { "organizationId": "org_2", "role": "editor" },
            { "organizationId": 3, "role": ["viewer", "owner"] },
        ],
        "member": { "org": { "id": "org_1" }, "roles": ["owner", "viewer"], "role": "owner" },
        "org_id": "org_1",
        "https://app.example.com/roles": ["viewer", "owner"],
    });
    for (member, claims, asked, code) in [
        (
            "claim = \"o\"\nrole_key = \"rol\"",
            &active,
            json!("org_1"),
            "",
        ),
        (
            "claim = \"o\"\nrole_key = \"rol\"",
            &active,
            nothing.clone(),
            "",
        ),
        (
            "claim = \"/o\"\nrole_key = \"rol\"",
            &active,
            json!("org_1"),
            "",
        ),
        (
            "claim = \"o\"",
            &active,
            json!("org_1"),
            "workspace_forbidden",
        ),
        (
            "claim = \"o\"\nrole_key = \"rol\"",
            &active,
            json!("rol"),
            "workspace_forbidden",
        ),
        (
            "claim = \"/o/id\"\nrole_claim = \"/o/rol\"",
            &active,
            json!("org_1"),
            "",
        ),
        (
            "claim = \"/o/id\"\nrole_claim = \"/o/rol\"",
            &active,
            nothing.clone(),
            "",
        ),
        (
            "claim = \"/o/id\"\nrole_claim = \"/o/rol\"",
            &active,
            json!("org_2"),
            "workspace_forbidden",
        ),
        (
            "claim = \"/o/id\"\nrole_claim = \"/o/slg\"",
            &active,
            json!("org_1"),
            "workspace_forbidden",
        ),
        // The role of one workspace is not the role of each of two.
        (
            "claim = \"/o/id\"\nrole_claim = \"/o/rol\"",
            &two,
            json!("org_1"),
            "workspace_forbidden",
        ),
        // The name of a claim may have slashes; a pointer starts with one.
        (
            "claim = \"https://app.example.com/orgs\"\nid_key = \"org\"\nrole_key = \"as\"",
            &named,
            json!(7),
            "",
        ),
        (
            "claim = \"https://app.example.com/orgs\"\nid_key = \"org\"\nrole_key = \"as\"",
            &named,
            json!("7"),
            "",
        ),
        (
            "claim = \"https://app.example.com/orgs\"",
            &named,
            json!(7),
            "workspace_forbidden",
        ),
        (
            "claim = \"orgs\"\nid_key = \"organizationId\"",
            &organizations,
            json!("org_2"),
            "",
        ),
        (
            "claim = \"orgs\"\nid_key = \"organizationId\"",
            &organizations,
            json!("org_1"),
            "workspace_forbidden",
        ),
        (
            "claim = \"orgs\"\nid_key = \"organizationId\"",
            &organizations,
            json!(3),
            "",
        ),
        (
            "claim = \"orgs\"",
            &organizations,
            json!("org_2"),
            "workspace_forbidden",
        ),
        (
            "claim = \"member\"\nid_key = \"/org/id\"\nrole_key = \"/roles/0\"",
            &organizations,
            nothing.clone(),
            "",
        ),
        // Without its id, an object is not a map of ids to roles.
        (
            "claim = \"member\"\nid_key = \"/org/uid\"\nrole_key = \"/roles/0\"",
            &organizations,
            json!("role"),
            "workspace_forbidden",
        ),
        // The id is in one claim, and its roles are in another.
        (
            "claim = \"org_id\"\nrole_claim = \"/https:~1~1app.example.com~1roles\"",
            &organizations,
            nothing.clone(),
            "",
        ),
        (
            "claim = \"/orgs\"",
            &slash,
            json!("org_1"),
            "workspace_forbidden",
        ),
        ("claim = \"/~1orgs\"", &slash, json!("org_1"), ""),
        (
            "claim = \"/a~1b/c~0d\"\nrole_claim = \"/m/n/1\"",
            &slash,
            json!("org_1"),
            "",
        ),
        (
            "claim = \"/a~1b/c~0d\"\nrole_claim = \"/m/n\"",
            &slash,
            json!("org_1"),
            "",
        ),
        (
            "claim = \"/a~1b/c~0d\"\nrole_claim = \"/m/n/0\"",
            &slash,
            json!("org_1"),
            "workspace_forbidden",
        ),
        (
            "claim = \"/a~1b/c~0d\"\nrole_claim = \"/m/absent\"",
            &slash,
            json!("org_1"),
            "workspace_forbidden",
        ),
    ] {
        let answer = ask_with(member, claims, &asked).await;
        assert_eq!(answer.code(), code, "{member} {claims} {asked}: {answer:?}");
    }
}

#[actix_web::test]
async fn without_roles_every_member_is_allowed() {
    let app = TestApp::start().await;
    for workspaces in [
        json!(["ws_1"]),
        json!({ "ws_1": null }),
        json!([{ "id": "ws_1" }]),
    ] {
        app.ask_as(&Token::of("user_1").with("workspaces", workspaces))
            .await
            .assert_token();
    }
}
