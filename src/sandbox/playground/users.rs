//! The demo users.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

pub(super) const WORKSPACES: [&str; 2] = ["ws_1", "ws_2"];

const HOUR: i64 = 60 * 60;

/// How long the tokens stay the same. They are valid for at least as long after that.
const RENEWAL: i64 = 12 * HOUR;

/// The demo users, whose tokens are signed with `secret`. `now` is in seconds.
pub(crate) fn demo_users(secret: &str, now: i64) -> Value {
    let renewed = now - now.rem_euclid(RENEWAL);
    let token = |subject: &str, workspaces: &Value, plan: &str, expires: i64| {
        let claims = json!({
            "sub": subject,
            "aud": "imgwire-gate",
            "exp": expires,
            "workspaces": workspaces,
            "plan": plan,
        });
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::default(), &claims, &key).ok()
    };
    let user = |id: &str, subject: &str, about: &str, workspaces: Value, plan: &str| {
        json!({
            "id": id,
            "subject": subject,
            "name": subject,
            "about": about,
            "plan": plan,
            "token": token(subject, &workspaces, plan, renewed + 2 * RENEWAL),
            "workspace": null,
        })
    };
    let of = |id: &str, role: &str| json!([{ "id": id, "role": role }]);
    let both = json!([{ "id": "ws_1", "role": "owner" }, { "id": "ws_2", "role": "owner" }]);
    let mut owner = user("owner", "user_2", "owner of ws_1 and ws_2", both, "pro");
    owner["workspace"] = json!("ws_2");
    let mut stranger = user(
        "stranger",
        "user_4",
        "member of no workspace",
        json!([]),
        "free",
    );
    stranger["workspace"] = json!("ws_1");
    let mut expired = user("expired", "user_1", "", of("ws_1", "editor"), "free");
    expired["name"] = json!("user_1, expired");
    expired["about"] = json!("signed in too long ago");
    expired["plan"] = Value::Null;
    expired["token"] = json!(token(
        "user_1",
        &of("ws_1", "editor"),
        "free",
        renewed - HOUR
    ));
    json!([
        user("editor", "user_1", "editor of ws_1", of("ws_1", "editor"), "free"),
        owner,
        user("viewer", "user_3", "viewer of ws_1", of("ws_1", "viewer"), "free"),
        stranger,
        expired,
        {
            "id": "nobody",
            "subject": null,
            "name": "Signed out",
            "about": "no credentials",
            "plan": null,
            "token": null,
            "workspace": "ws_1",
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_before_they_expire() {
        let token = |now: i64| demo_users("secret", now)[0]["token"].clone();
        assert_eq!(token(0), token(RENEWAL - 1));
        assert_ne!(token(0), token(RENEWAL));
    }
}
