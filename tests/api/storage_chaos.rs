//! Storage through kills of the gate, and through outages of its store and of Imgwire: once everything is quiet, what is
//! counted is what Imgwire holds.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    process::Command,
    time::{Duration, Instant},
};

use actix_web::http::Method;
use fastrand::Rng;
use futures_util::future::{join, join_all, select};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    helpers::{
        ENVIRONMENT, Emulator, Endpoint, Gate, Misbehaviour, SERVER_API_KEY, Token, storage,
        upload_route, workspace_member,
    },
    process::{GateProcess, write_config},
    upload_records::{image_ids, png_of},
    uploads::{CREATE, IMAGES},
};

const WORKSPACES: [&str; 2] = ["ws_1", "ws_2"];
const CLIENTS: u64 = 8;
const MAX_IMAGES: u64 = 40;
const MAX_BYTES: u64 = 3000;
const MAX_OPEN: u64 = 12;
/// How many images with a file their clients keep to the end.
const SPARED: usize = 8;
const ABANDONED_AFTER: Duration = Duration::from_secs(5);
/// How many bytes a file may have more than were declared.
const MAX_LIE: u64 = 200;

/// How often to kill the gate. More for a longer search by hand.
fn kills() -> u64 {
    let set = std::env::var("IMGWIRE_GATE_TESTS_STORAGE_KILLS");
    set.map_or(50, |count| count.parse().unwrap())
}

fn gate() -> Gate {
    let space = storage().per(["workspace"]).max_bytes(MAX_BYTES);
    let route = upload_route("/imgwire/{workspace}", ["signed-in", "member", "space"])
        .metadata(json!({ "workspace": "workspace.id" }))
        .set("abandon_after", format!("{}s", ABANDONED_AFTER.as_secs()));
    Gate::accepting(["app"])
        .server("reads", json!({ "limit": 1_000_000, "period": "1s" }))
        .imgwire("timeout", "500ms")
        .imgwire("deadline", "1s")
        .policy("member", workspace_member().claim("workspaces"))
        .policy("space", space.max_images(MAX_IMAGES).max_open(MAX_OPEN))
        .route_with(route)
}

/// An upload that the gate has confirmed.
#[derive(Clone)]
struct Upload {
    workspace: &'static str,
    url: String,
    declared: u64,
    /// By Imgwire.
    created: Timestamp,
}

/// Images by what clients did to them.
#[derive(Default)]
struct Touched {
    /// Their file arrived long before they are abandoned.
    filled: HashSet<String>,
    /// A client, or the owner of the account, asked for their deletion.
    deleted: HashSet<String>,
}

impl Touched {
    fn kept(&self) -> HashSet<String> {
        self.filled.difference(&self.deleted).cloned().collect()
    }
}

struct World {
    imgwire: Emulator,
    token: String,
    client: awc::Client,
    uploads: Mutex<HashMap<String, Upload>>,
    /// How many requests had each result, and how many files arrived.
    results: Mutex<BTreeMap<String, u64>>,
    touched: Mutex<Touched>,
}

/// What a workspace has: bytes, images, and open uploads.
type Held = [u64; 3];

impl World {
    fn start() -> Self {
        let imgwire = Emulator::start().unwrap();
        imgwire.change(|scenario| scenario.processing_milliseconds = 50);
        let token = Token::of("user_1").with("workspaces", json!(WORKSPACES));
        Self {
            imgwire,
            token: token.sign(),
            client: awc::Client::builder()
                .timeout(Duration::from_secs(5))
                .finish(),
            uploads: Mutex::default(),
            results: Mutex::default(),
            touched: Mutex::default(),
        }
    }

    /// `None` if the gate does not answer.
    async fn send(&self, method: Method, url: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let request = self.client.request(method, url).bearer_auth(&self.token);
        let sent = match body {
            Some(body) => request.send_json(body).await,
            None => request.send().await,
        };
        let mut answer = sent.ok()?;
        let body = answer.body().await.ok()?;
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Some((answer.status().as_u16(), json))
    }

    /// Sends requests until the gate does not answer.
    async fn attack(&self, gate: &str, mut random: Rng) {
        loop {
            let is_alive = match random.u8(..10) {
                0..=3 => self.create(gate, &mut random).await,
                4..=6 => self.send_file(&mut random).await,
                7..=8 => self.of_one(Method::GET, gate, &mut random).await,
                _ => self.of_one(Method::DELETE, gate, &mut random).await,
            };
            if is_alive.is_none() {
                return;
            }
        }
    }

    async fn create(&self, gate: &str, random: &mut Rng) -> Option<()> {
        let workspace = WORKSPACES[random.usize(..WORKSPACES.len())];
        let key = random.bool().then(|| random.u64(..40));
        let declared = 30 + key.unwrap_or_else(|| random.u64(..100));
        let mut body = json!({
            "file_name": "a.png", "mime_type": "image/png", "content_length": declared,
        });
        if let Some(key) = key {
            body["idempotency_key"] = json!(format!("key-{key}"));
        }
        let url = format!("{gate}/imgwire/{workspace}{CREATE}");
        let create = || self.send(Method::POST, &url, Some(&body));
        // A key is sent twice at once.
        let times = 1 + usize::from(key.is_some());
        let answers = join_all((0..times).map(|_| create())).await;
        for answer in answers {
            let (status, answer) = answer?;
            let result = answer["code"].as_str().unwrap_or("created");
            self.count(result);
            if status != 200 {
                let known = ["storage_full", "internal", "imgwire_failed", "overloaded"];
                assert!(known.contains(&result), "{answer}");
                continue;
            }
            let image = answer["image"]["id"].as_str().unwrap().to_owned();
            if key.is_none() && random.u8(..8) == 0 {
                // The owner of the account deletes it before its file arrives, if there is no outage.
                self.touched.lock().deleted.insert(image.clone());
                let url = format!("{}{IMAGES}{image}", self.imgwire.url());
                let deletion = self.client.delete(url).bearer_auth(SERVER_API_KEY);
                let deletion = deletion.timeout(Duration::from_millis(300));
                deletion.send().await.ok();
            }
            let upload = Upload {
                workspace,
                url: answer["upload_url"].as_str().unwrap().to_owned(),
                declared,
                created: answer["image"]["created_at"]
                    .as_str()
                    .unwrap()
                    .parse()
                    .unwrap(),
            };
            self.uploads.lock().insert(image, upload);
        }
        Some(())
    }

    fn count(&self, result: &str) {
        *self.results.lock().entry(result.to_owned()).or_default() += 1;
    }

    fn pick(&self, random: &mut Rng) -> Option<(String, Upload)> {
        let uploads = self.uploads.lock();
        // In an order that does not depend on the process.
        let mut images: Vec<_> = uploads.keys().collect();
        images.sort();
        let image = images.get(random.usize(..images.len().max(1)))?.to_string();
        let upload = uploads[&image].clone();
        Some((image, upload))
    }

    /// The file arrives late or twice, and may be larger or smaller than declared. That of others never arrives.
    async fn send_file(&self, random: &mut Rng) -> Option<()> {
        let Some((image, upload)) = self.pick(random) else {
            return Some(());
        };
        let size = match random.u8(..4) {
            0 => upload.declared + random.u64(..=MAX_LIE),
            1 => 30,
            _ => upload.declared,
        };
        let put = self.client.put(&upload.url).content_type("image/png");
        let file = png_of(usize::try_from(size).unwrap());
        // An upload that was abandoned, or has its file, takes none.
        let sent = put.send_body(file).await;
        if sent.is_ok_and(|answer| answer.status().is_success()) {
            self.count("file");
            let age = Timestamp::now().duration_since(upload.created);
            if age.unsigned_abs() < ABANDONED_AFTER / 2 {
                self.touched.lock().filled.insert(image);
            }
        }
        Some(())
    }

    async fn of_one(&self, method: Method, gate: &str, random: &mut Rng) -> Option<()> {
        let Some((image, upload)) = self.pick(random) else {
            return Some(());
        };
        let url = format!("{gate}/imgwire/{}{IMAGES}{image}", upload.workspace);
        if method == Method::DELETE {
            let mut touched = self.touched.lock();
            if touched.filled.contains(&image) && touched.kept().len() <= SPARED {
                return Some(());
            }
            touched.deleted.insert(image.clone());
        }
        let (status, _) = self.send(method, &url, None).await?;
        if [204, 404].contains(&status) {
            self.uploads.lock().remove(&image);
        }
        Some(())
    }

    /// What Imgwire holds for a workspace: bytes and images.
    fn at_imgwire(&self, workspace: &str) -> [u64; 2] {
        let images = self.imgwire.images(ENVIRONMENT).into_iter();
        let ours = images.filter(|image| image["custom_metadata"]["workspace"] == workspace);
        ours.fold([0, 0], |[bytes, images], image| {
            [bytes + image["size_bytes"].as_u64().unwrap(), images + 1]
        })
    }

    /// Never returns.
    async fn watch(&self) {
        loop {
            for workspace in WORKSPACES {
                let [bytes, images] = self.at_imgwire(workspace);
                assert!(images <= MAX_IMAGES, "{workspace}: {images} images");
                let most = MAX_BYTES + MAX_OPEN * MAX_LIE;
                assert!(bytes <= most, "{workspace}: {bytes} bytes");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn misbehave(&self, random: &mut Rng, is_failing: bool) {
        for endpoint in [Endpoint::Upload, Endpoint::Image, Endpoint::Delete] {
            let ways = [
                Some(Misbehaviour::Status(503, None)),
                Some(Misbehaviour::BreakOff),
                Some(Misbehaviour::Close),
                Some(Misbehaviour::Hang),
                Some(Misbehaviour::Slow(Duration::from_millis(100))),
                None,
            ];
            let way = ways[random.usize(..ways.len())].clone();
            let way = way.filter(|_| is_failing);
            self.imgwire.misbehave_at(endpoint, way);
        }
    }

    /// Lets the gate live for a moment, perhaps with outages, and kills it.
    async fn life(&self, gate: &mut GateProcess, seed: u64) {
        let mut random = Rng::with_seed(seed);
        let url = gate.url();
        let attacks = (0..CLIENTS).map(|client| {
            let random = Rng::with_seed(seed * CLIENTS + client);
            self.attack(&url, random)
        });
        let pause =
            |random: &mut Rng| tokio::time::sleep(Duration::from_millis(random.u64(50..400)));
        let trouble = async {
            pause(&mut random).await;
            if seed % 3 == 1 {
                self.misbehave(&mut random, true);
                pause(&mut random).await;
            }
            if seed % 4 == 1 {
                limit_files(gate, "1000:");
                pause(&mut random).await;
                if random.bool() {
                    limit_files(gate, "unlimited:");
                    pause(&mut random).await;
                }
            }
            gate.signal("-KILL");
        };
        let living = Box::pin(join(join_all(attacks), trouble));
        select(living, Box::pin(self.watch())).await;
        gate.end().await;
        self.misbehave(&mut Rng::with_seed(seed), false);
    }

    async fn counted(&self, gate: &GateProcess, workspace: &str) -> Held {
        let url = format!("{}/quota/space?key={workspace}", gate.management());
        let (status, answer) = self.send(Method::GET, &url, None).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        ["bytes", "images", "open"].map(|part| answer[part].as_u64().unwrap())
    }
}

/// A limit on the size of files acts like a full disk.
fn limit_files(gate: &GateProcess, bytes: &str) {
    let pid = gate.id().to_string();
    let limit = format!("--fsize={bytes}");
    let status = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(status.unwrap().success());
}

#[actix_web::test]
async fn what_is_counted_is_what_imgwire_holds_after_kills_and_outages() {
    let world = World::start();
    let (_folder, config) = write_config(&gate(), world.imgwire.url());
    // The signal of a full disk must be ignored.
    let wrapper = ["env", "--ignore-signal=XFSZ"];
    for seed in 0..kills() {
        let mut gate = GateProcess::start(&config, &wrapper, "info").await;
        world.life(&mut gate, seed).await;
    }
    let results = world.results.lock().clone();
    for result in [
        "created",
        "file",
        "storage_full",
        "imgwire_failed",
        "internal",
    ] {
        assert!(results.contains_key(result), "{results:?}");
    }

    // The calls of the last kill are repeated when their requests have ended, and open uploads are abandoned.
    let gate = GateProcess::start(&config, &wrapper, "info").await;
    let started = Instant::now();
    loop {
        let mut differences = Vec::new();
        for workspace in WORKSPACES {
            let [bytes, images, open] = world.counted(&gate, workspace).await;
            let held = world.at_imgwire(workspace);
            if ([bytes, images], open) != (held, 0) {
                differences.push((workspace, [bytes, images, open], held));
            }
        }
        if differences.is_empty() {
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "{differences:?}\n{}",
            gate.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The gate has deleted no image whose client got it and sent its file.
    let existing: HashSet<_> = image_ids(&world.imgwire).into_iter().collect();
    let kept = world.touched.lock().kept();
    let lost: Vec<_> = kept.difference(&existing).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", kept.len());
    assert!(!kept.is_empty(), "{results:?}");
}
