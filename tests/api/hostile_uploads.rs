//! Clients that lie about their uploads: whatever they send, an image has the owner, the purpose, the type, the size and
//! the metadata that the gate decided on.

use std::collections::HashMap;

use actix_web::http::Method;
use fastrand::Rng;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::helpers::{Answer, ENVIRONMENT, Gate, TestApp, Token, upload_intent, workspace_member};

const USERS: usize = 6;
const WORKSPACES: usize = 3;
const MAX_SIZE: u64 = 5_000_000;
const CONCURRENT: usize = 16;

/// How many requests to send. More for a longer search by hand.
fn requests() -> usize {
    let set = std::env::var("IMGWIRE_GATE_TESTS_HOSTILE_UPLOADS");
    set.map_or(2000, |count| count.parse().unwrap())
}

fn gate() -> Gate {
    let avatars = upload_intent()
        .set("purposes", ["avatar", "cover"])
        .set("mime_types", ["image/png", "image/jpeg"])
        .set("max_size", "5MB");
    Gate::accepting(["app"])
        .server("max_in_flight", 1000)
        .server("reads", json!({ "limit": 1_000_000, "period": "1s" }))
        .policy("member", workspace_member().claim("workspaces"))
        .policy("avatars", avatars)
        .route_with(json!({
            "action": "upload",
            "path": "/imgwire/{workspace}",
            "policies": ["signed-in", "member", "avatars"],
            "store": "main",
            "metadata": { "workspace": "workspace.id", "owner": "subject.id" },
            "client_metadata": ["alt"],
            "delete_roles": ["admin"],
        }))
}

/// The workspaces of a user: its own, and the next one.
fn workspaces_of(user: usize) -> [String; 2] {
    [user, user + 1].map(|index| format!("ws_{}", index % WORKSPACES))
}

fn user_id(user: usize) -> String {
    format!("user_{user}")
}

/// What the gate has confirmed: who created which image, and which were deleted.
#[derive(Default)]
struct Known {
    owners: HashMap<String, (usize, String)>,
    deleted: Vec<String>,
}

struct Attack<'a> {
    app: &'a TestApp,
    tokens: &'a [String],
    known: &'a Mutex<Known>,
    user: usize,
    /// A member of it or not.
    workspace: String,
    random: Rng,
}

impl Attack<'_> {
    fn is_member(&self) -> bool {
        workspaces_of(self.user).contains(&self.workspace)
    }

    async fn send(&self, method: Method, path: &str, body: Option<String>) -> Answer {
        let path = format!("/imgwire/{}/api/v1/images/{path}", self.workspace);
        let request = self.app.request(method, &path);
        let request = request.bearer(&self.tokens[self.user]);
        // It names another workspace than the path.
        let request = request.header("x-workspace-id", "ws_0");
        match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                request.send_body(body).await
            }
            None => request.send().await,
        }
    }

    async fn run(mut self) {
        match self.random.u8(..10) {
            0..=5 => self.create().await,
            6..=7 => self.read().await,
            8 => self.list().await,
            _ => self.delete().await,
        }
    }

    fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.random.usize(..values.len())].clone()
    }

    fn body(&mut self) -> Map<String, Value> {
        let forged = json!({
            "workspace": "ws_1", "owner": "user_0", "alt": "A face", "subject": "user_0", "Owner": "x", "": 1,
        });
        let purposes = [
            json!("avatar"),
            json!("cover"),
            json!("secret"),
            Value::Null,
        ];
        let types = [
            json!("image/png"),
            json!("IMAGE/JPEG; q=1"),
            json!("image/gif"),
            json!("text/html"),
            Value::Null,
        ];
        let sizes = [
            json!(1000),
            json!(MAX_SIZE),
            json!(MAX_SIZE + 1),
            json!(-1),
            json!(u64::MAX),
            json!("1000"),
            Value::Null,
        ];
        let fields = [
            ("file_name", json!("me.png")),
            ("purpose", self.pick(&purposes)),
            ("mime_type", self.pick(&types)),
            ("content_length", self.pick(&sizes)),
            ("custom_metadata", forged),
            ("upload_token", json!("ut_1")),
            ("owner", json!("user_0")),
            ("workspace", json!("ws_0")),
            ("environment_id", json!("other")),
            ("id", json!("00000000-0000-4000-8000-000000000001")),
        ];
        let mut body: Map<String, Value> = Map::new();
        for (name, value) in fields {
            body.insert(name.to_owned(), value);
        }
        if self.random.bool() {
            // Of few keys, so that others have used them.
            let key = format!("key-{}", self.random.u8(..20));
            body.insert("idempotency_key".to_owned(), json!(key));
        }
        body
    }

    async fn create(mut self) {
        let body = self.body();
        let mut text = Value::Object(body.clone()).to_string();
        if self.random.u8(..10) == 0 {
            // The second purpose is one that the chain does not see, or does.
            text = text.replacen('{', "{\"purpose\":\"avatar\",", 1);
        }
        let answer = self
            .send(
                Method::POST,
                "standard_upload?upload_token=ut_1",
                Some(text),
            )
            .await;
        if answer.status != 200 {
            let status = answer.status.as_u16();
            assert!([400, 403].contains(&status), "{body:?} {answer:?}");
            return;
        }
        assert!(self.is_member(), "{answer:?}");
        let image = &answer.json["image"];
        self.check(image);
        let id = image["id"].as_str().unwrap().to_owned();
        let owner = (self.user, self.workspace.clone());
        let earlier = self.known.lock().owners.insert(id, owner.clone());
        assert!(earlier.is_none_or(|earlier| earlier == owner));
    }

    /// Checks an image that this user's request led to.
    fn check(&self, image: &Value) {
        let metadata = json!({
            "alt": "A face", "workspace": self.workspace, "owner": user_id(self.user),
        });
        assert_eq!(image["custom_metadata"], metadata, "{image}");
        check_file(image);
    }

    /// An id that is known, or is not.
    fn any_id(&mut self) -> String {
        let known = self.known.lock();
        let mut ids: Vec<_> = known.owners.keys().cloned().collect();
        drop(known);
        ids.sort();
        ids.push("00000000-0000-4000-8000-00000000ffff".to_owned());
        ids.push("..%2f..%2fapi_keys".to_owned());
        self.pick(&ids)
    }

    fn owner_of(&self, id: &str) -> Option<(usize, String)> {
        self.known.lock().owners.get(id).cloned()
    }

    async fn read(mut self) {
        let id = self.any_id();
        let answer = self.send(Method::GET, &id, None).await;
        if answer.status == 200 {
            let (_, workspace) = self.owner_of(&id).unwrap();
            assert_eq!(workspace, self.workspace);
            assert!(self.is_member(), "{answer:?}");
        } else {
            answer.assert_error(404, "not_found");
        }
    }

    async fn list(self) {
        let answer = self.send(Method::GET, "?limit=20", None).await;
        if !self.is_member() {
            answer.assert_error(404, "not_found");
            return;
        }
        for image in answer.json.as_array().unwrap() {
            let metadata = &image["custom_metadata"];
            assert_eq!(metadata["workspace"], self.workspace, "{image}");
        }
    }

    async fn delete(mut self) {
        let id = self.any_id();
        let owner = self.owner_of(&id);
        let answer = self.send(Method::DELETE, &id, None).await;
        if answer.status == 204 {
            assert_eq!(owner, Some((self.user, self.workspace.clone())));
            self.known.lock().deleted.push(id);
        } else {
            answer.assert_error(404, "not_found");
        }
    }
}

/// What the chain allows.
fn check_file(image: &Value) {
    let (purpose, mime_type) = (image["purpose"].as_str(), image["mime_type"].as_str());
    assert!(["avatar", "cover"].map(Some).contains(&purpose), "{image}");
    let types = ["image/png", "image/jpeg"].map(Some);
    assert!(types.contains(&mime_type), "{image}");
    assert!(image["size_bytes"].as_u64() <= Some(MAX_SIZE), "{image}");
    assert_eq!(image["upload_token_id"], Value::Null);
}

#[actix_web::test]
async fn no_image_has_a_wrong_owner_purpose_or_metadata() {
    let app = gate().start().await;
    let tokens: Vec<_> = (0..USERS)
        .map(|user| Token::of(&user_id(user)).with("workspaces", json!(workspaces_of(user))))
        .map(|token| token.sign())
        .collect();
    let known = Mutex::<Known>::default();
    // The same attacks in each run, and others for another number of requests.
    let requests = requests();
    let mut random = Rng::with_seed(requests as u64);
    let attacks: Vec<_> = (0..requests)
        .map(|_| Attack {
            app: &app,
            tokens: &tokens,
            known: &known,
            user: random.usize(..USERS),
            workspace: format!("ws_{}", random.usize(..WORKSPACES)),
            random: random.fork(),
        })
        .collect();
    stream::iter(attacks)
        .for_each_concurrent(CONCURRENT, Attack::run)
        .await;

    let known = known.into_inner();
    assert!(
        known.owners.len() > 20 && known.deleted.len() > 1,
        "the attacks also do what is allowed"
    );
    for image in app.imgwire.images(ENVIRONMENT) {
        let id = image["id"].as_str().unwrap();
        let (user, workspace) = &known.owners[id];
        let metadata = json!({ "alt": "A face", "workspace": workspace, "owner": user_id(*user) });
        assert_eq!(image["custom_metadata"], metadata);
        check_file(&image);
        let found = app.manage(&format!("/images?image={id}")).await;
        let record = &found.json["images"][0];
        assert_eq!(record["subject"], user_id(*user), "{found:?}");
        assert_eq!(record["workspace"], *workspace);
        assert_eq!(record["purpose"], image["purpose"]);
        assert!(!known.deleted.iter().any(|deleted| deleted == id));
    }
}
