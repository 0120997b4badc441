//! What the tests of `imgwire-gate doctor` share: an Imgwire that protects the gate, and what the command prints.

use std::path::Path;

use actix_web::web;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    helpers::{
        CLIENT_KEY, CorsOrigin, EVENTS_SECRET, Emulator, Gate, SECRET, SERVER_API_KEY, SESSION_KEY,
    },
    process::{program, text},
};

/// What the point on the Client Key says if an upload without a token was accepted.
pub(crate) const BYPASS: &str = "anyone with the Client Key can upload without this gate";

/// An Imgwire, and the folder of a config.
pub(crate) struct Setup {
    pub(crate) imgwire: Emulator,
    pub(crate) folder: TempDir,
}

/// What the command printed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) code: i32,
    pub(crate) points: Vec<Value>,
    pub(crate) stderr: String,
}

impl Report {
    /// The point on a part.
    pub(crate) fn point(&self, part: &str) -> &Value {
        let mut points = self.points.iter();
        let point = points.find(|point| point["part"] == part);
        point.unwrap_or_else(|| panic!("no point on {part}: {self:?}"))
    }

    pub(crate) fn state(&self, part: &str) -> &str {
        self.point(part)["state"].as_str().unwrap()
    }

    /// The state of a point, whose message and remedy must contain these texts.
    #[track_caller]
    pub(crate) fn assert(&self, part: &str, state: &str, message: &str, remedy: &str) {
        let point = self.point(part);
        let contains = |key: &str, text: &str| point[key].as_str().unwrap().contains(text);
        assert_eq!(point["state"], state, "{point}");
        assert!(contains("message", message), "{point}");
        assert!(contains("remedy", remedy), "{point}");
        assert_eq!(self.code, i32::from(self.has_failed()), "{self:?}");
    }

    fn has_failed(&self) -> bool {
        self.points.iter().any(|point| point["state"] == "failed")
    }

    /// The parts that are not ok.
    pub(crate) fn alarms(&self) -> Vec<&str> {
        let points = self.points.iter();
        let alarms = points.filter(|point| point["state"] != "ok");
        alarms
            .map(|point| point["part"].as_str().unwrap())
            .collect()
    }
}

/// A gate whose pages upload with a Client Key.
pub(crate) fn protected() -> Gate {
    Gate::standard()
        .imgwire("client_key", CLIENT_KEY)
        .server("allowed_origins", ["https://*.example.com"])
}

impl Setup {
    /// An Imgwire that protects the gate.
    pub(crate) fn new() -> Self {
        let imgwire = Emulator::start().unwrap();
        imgwire.change(|scenario| scenario.cors_origins = vec![CorsOrigin::new("*.example.com")]);
        Self {
            imgwire,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// An Imgwire whose Client Key needs no token.
    pub(crate) fn unprotected() -> Self {
        let setup = Self::new();
        setup
            .imgwire
            .change(|scenario| scenario.client_keys[0].allow_unsigned_upload = true);
        setup
    }

    /// Runs the command with `--probe`.
    pub(crate) async fn probe(&self, gate: &Gate) -> Report {
        self.run(gate, self.imgwire.url(), &["--probe", "--json"], &[])
            .await
    }

    pub(crate) async fn run(
        &self,
        gate: &Gate,
        base_url: &str,
        options: &[&str],
        environment: &[(&str, &str)],
    ) -> Report {
        let (code, stdout, stderr) =
            doctor(gate, base_url, self.folder.path(), options, environment).await;
        let report: Value = serde_json::from_str(&stdout).unwrap_or_default();
        let points = report["points"].as_array().cloned().unwrap_or_default();
        let report_is_ok = report["ok"] == true;
        let report = Report {
            code,
            points,
            stderr,
        };
        assert_eq!(report_is_ok, code == 0, "{report:?}");
        for secret in [
            SERVER_API_KEY,
            SECRET,
            SESSION_KEY,
            CLIENT_KEY,
            EVENTS_SECRET,
        ] {
            let shown = format!("{stdout}{}", report.stderr);
            assert!(!shown.contains(secret), "{shown}");
        }
        report
    }
}

/// The exit code, and what the command prints.
pub(crate) async fn doctor(
    gate: &Gate,
    base_url: &str,
    folder: &Path,
    options: &[&str],
    environment: &[(&str, &str)],
) -> (i32, String, String) {
    let mut command = program(&[]);
    command.arg("doctor").args(options);
    command.arg(gate.write(base_url, folder));
    command.envs(environment.iter().copied());
    // The services that it asks run on this thread.
    let output = web::block(move || command.output()).await.unwrap().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap(), stdout, stderr)
}

/// Creates an image with the Server API Key.
pub(crate) async fn upload(imgwire: &Emulator) {
    let url = format!("{}/api/v1/images/standard_upload", imgwire.url());
    let request = awc::Client::default().post(url).bearer_auth(SERVER_API_KEY);
    let response = request.send_json(&json!({ "file_name": "me.png" })).await;
    assert_eq!(response.unwrap().status(), 200);
}
