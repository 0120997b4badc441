//! Every kind of outbound call, to a peer that answers as a test says.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    helpers::{
        Answer, Gate, TestApp, Token, expression, introspection, remote_decision, remote_session,
        workspace_member,
    },
    hostile_peer::{Act, Asked, HostilePeer, response},
};

pub(crate) const MOMENT: Duration = Duration::from_millis(2);

/// A kind of outbound call of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Membership,
    PlainPolicy,
    OpaPolicy,
    Introspection,
    RemoteIdentity,
    Imgwire,
}

pub(crate) const CALLS: [Call; 6] = [
    Call::Membership,
    Call::PlainPolicy,
    Call::OpaPolicy,
    Call::Introspection,
    Call::RemoteIdentity,
    Call::Imgwire,
];

/// Users with an even number may upload.
pub(crate) fn may_upload(user: &str) -> bool {
    let number = user
        .strip_prefix("user_")
        .and_then(|n| n.parse::<u32>().ok());
    number.is_some_and(|number| number % 2 == 0)
}

impl Call {
    /// A gate that makes this call at `url` for each request. Its rules tell the answers to two users apart.
    pub(crate) fn builder(self, url: &str, timeout: &str) -> Gate {
        let own = expression("subject.id == request.purpose");
        match self {
            Self::Membership => {
                let url = format!("{url}/members/{{workspace}}/{{user}}");
                Gate::accepting(["app"])
                    .policy("asked", workspace_member().url(url).timeout(timeout))
                    .policy("own", expression("workspace.role == subject.id"))
                    .chain(["signed-in", "asked", "own"])
            }
            Self::PlainPolicy | Self::OpaPolicy => {
                let is_opa = self == Self::OpaPolicy;
                let asked = remote_decision(&format!("{url}/allow"))
                    .protocol(if is_opa { "opa" } else { "plain" })
                    .timeout(timeout);
                Gate::accepting(["app"])
                    .policy("asked", asked)
                    .chain(["signed-in", "asked"])
            }
            Self::Introspection => Gate::accepting(["asked"])
                .identity(
                    "asked",
                    introspection(&format!("{url}/introspect")).timeout(timeout),
                )
                .policy("own", own)
                .chain(["signed-in", "own"]),
            Self::RemoteIdentity => {
                let asked = remote_session(&format!("{url}/session"), ["cookie:sid"], "/user/id");
                Gate::accepting(["asked"])
                    .identity("asked", asked.timeout(timeout))
                    .policy("own", own)
                    .chain(["signed-in", "own"])
            }
            Self::Imgwire => Gate::accepting(["app"])
                .imgwire("base_url", url)
                .imgwire("timeout", timeout)
                .imgwire("deadline", "60s")
                .imgwire("retries", 1),
        }
    }

    /// Asks for a token as `user`.
    pub(crate) async fn ask(self, gate: &TestApp, user: &str) -> Answer {
        let request = gate.ask();
        let request = match self {
            Self::Introspection => request.bearer(&format!("opaque-{user}")),
            Self::RemoteIdentity => request.header("cookie", &format!("sid={user}")),
            Self::Imgwire => request
                .bearer(&Token::of(user).sign())
                .header("traceparent", &traceparent(user)),
            _ => request.bearer(&Token::of(user).sign()),
        };
        request
            .json(&json!({ "workspace": "ws_1", "purpose": user }))
            .await
    }

    /// The user that a request of the gate is about.
    pub(crate) fn user(self, asked: &Asked) -> String {
        match self {
            Self::Membership => asked.target.rsplit('/').next().unwrap().to_owned(),
            Self::PlainPolicy | Self::OpaPolicy => {
                let facts: Value = serde_json::from_str(&asked.body).unwrap();
                let facts = if self == Self::OpaPolicy {
                    &facts["input"]
                } else {
                    &facts
                };
                facts["subject"]["id"].as_str().unwrap().to_owned()
            }
            Self::Introspection => {
                let (_, token) = asked.body.split_once("token=opaque-").unwrap();
                token.split('&').next().unwrap().to_owned()
            }
            Self::RemoteIdentity => asked.header("cookie").replace("sid=", ""),
            Self::Imgwire => {
                let id = asked.header("traceparent").split('-').nth(1).unwrap();
                format!("user_{}", u128::from_str_radix(id, 16).unwrap())
            }
        }
    }

    /// The status and the body of the right answer about a user.
    pub(crate) fn right(self, user: &str) -> (u16, String) {
        let allowed = may_upload(user);
        // A wrong user fails the rule about purposes or roles.
        let name = if allowed { user } else { "another user" };
        match self {
            Self::Membership => (200, json!({ "role": name }).to_string()),
            Self::PlainPolicy => (if allowed { 200 } else { 403 }, "{}".to_owned()),
            Self::OpaPolicy => (200, json!({ "result": allowed }).to_string()),
            Self::Introspection => (200, json!({ "active": true, "sub": name }).to_string()),
            Self::RemoteIdentity => (200, json!({ "user": { "id": name } }).to_string()),
            Self::Imgwire => (200, json!({ "token": format!("ut_{user}") }).to_string()),
        }
    }

    /// An answer that would let any user in whose request it reached.
    pub(crate) fn generous(self, user: &str) -> Vec<u8> {
        let (_, body) = self.right(user);
        response(200, &body)
    }

    /// Whether an answer of the gate to `user` is right.
    pub(crate) fn is_right(self, user: &str, answer: &Answer) -> bool {
        match self {
            Self::Imgwire => {
                answer.status == 200 && answer.json["uploadToken"] == format!("ut_{user}")
            }
            _ => answer.status == if may_upload(user) { 200 } else { 403 },
        }
    }
}

pub(crate) fn traceparent(user: &str) -> String {
    let number: u128 = user.strip_prefix("user_").unwrap().parse().unwrap();
    format!("00-{number:032x}-00000000000000aa-01")
}

/// A gate whose peer answers each request as `script` says, given the right answer.
pub(crate) async fn gate_before(
    call: Call,
    timeout: &str,
    script: impl Fn(Call, &Asked, Vec<u8>) -> Vec<Act> + Send + Sync + 'static,
) -> (TestApp, HostilePeer) {
    let peer = HostilePeer::start(move |asked: &Asked| {
        let (status, body) = call.right(&call.user(asked));
        script(call, asked, response(status, &body))
    });
    let gate = call.builder(&peer.url(), timeout).start().await;
    (gate, peer)
}

#[track_caller]
pub(crate) fn assert_right(call: Call, user: &str, answer: &Answer) {
    assert!(
        call.is_right(user, answer),
        "{call:?} for {user}: {answer:?}"
    );
}

/// User 1 may not upload, user 2 may, and so on.
pub(crate) async fn every_user_gets_the_right_answer(call: Call, gate: &TestApp, users: u32) {
    for number in 1..=users {
        let user = format!("user_{number}");
        assert_right(call, &user, &call.ask(gate, &user).await);
    }
}
