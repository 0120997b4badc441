//! The tokens that the load carries, as scripts for wrk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::json;

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";
const USERS: usize = 1000;
const FLOOD: usize = 10_000;
const PUBLISHED: &[u8] = include_bytes!("../../tests/keys/ec_private.pem");

/// A load's tokens, sent in turn.
#[derive(Clone, Copy)]
pub(crate) enum Tokens {
    /// Of a thousand users in fifty workspaces, signed with the shared secret.
    Shared,
    /// Of the same users, signed with the issuer's published key.
    Published,
    /// Ten thousand that name the published key, which did not sign them.
    Forged,
    /// Ten thousand, each of which names another key that nobody knows.
    UnknownKeys,
}

impl Tokens {
    /// Writes the script that sends only these tokens into a folder.
    pub(crate) fn script(self, folder: &Path) -> PathBuf {
        self.write(folder, "", "nil", "")
    }

    /// Writes the script that also declares a file.
    pub(crate) fn upload_script(self, folder: &Path) -> PathBuf {
        const BODY: &str = r#"[[{"file_name":"me.png","mime_type":"image/png","content_length":48213,"purpose":"avatar"}]]"#;
        let json = r#", ["Content-Type"] = "application/json""#;
        self.write(folder, "-upload", BODY, json)
    }

    fn write(self, folder: &Path, end: &str, body: &str, header: &str) -> PathBuf {
        let (name, count) = match self {
            Self::Shared => ("shared", USERS),
            Self::Published => ("published", USERS),
            Self::Forged => ("forged", FLOOD),
            Self::UnknownKeys => ("unknown", FLOOD),
        };
        let tokens: Vec<String> = (0..count)
            .map(|number| format!("{:?}", self.token(number)))
            .collect();
        let script = format!(
            r#"
local tokens = {{ {} }}
local requests = {{}}
local i = 0
function init(args)
    for n, token in ipairs(tokens) do
        local headers = {{ ["Authorization"] = "Bearer " .. token{header} }}
        requests[n] = wrk.format("POST", nil, headers, {body})
    end
end
function request()
    i = i % #requests + 1
    return requests[i]
end
"#,
            tokens.join(",")
        );
        let path = folder.join(format!("{name}{end}.lua"));
        fs::write(&path, script).expect("the script can be written");
        path
    }

    fn token(self, number: usize) -> String {
        let claims = json!({
            "sub": format!("user_{number}"),
            "aud": "imgwire-gate",
            "iss": "https://app.example.com",
            "exp": 4_000_000_000_u64,
            "workspaces": [format!("ws_{}", number % 50)],
            "plan": "pro",
        });
        let (header, key) = match self {
            Self::Shared => (
                Header::default(),
                EncodingKey::from_secret(SECRET.as_bytes()),
            ),
            Self::Published | Self::Forged => (named("published".to_owned()), published()),
            Self::UnknownKeys => (named(format!("unknown-{number}")), published()),
        };
        let token =
            jsonwebtoken::encode(&header, &claims, &key).expect("the claims can be encoded");
        match self {
            // Its payload changed after it was signed.
            Self::Forged => {
                let other = jsonwebtoken::encode(&header, &json!({ "sub": number }), &key)
                    .expect("the claims can be encoded");
                let signature = other.rsplit('.').next().unwrap_or_default();
                let signed = token.rsplit_once('.').map_or("", |(signed, _)| signed);
                format!("{signed}.{signature}")
            }
            _ => token,
        }
    }
}

fn named(kid: String) -> Header {
    Header {
        kid: Some(kid),
        ..Header::new(Algorithm::ES256)
    }
}

fn published() -> EncodingKey {
    EncodingKey::from_ec_pem(PUBLISHED).expect("the key is valid")
}

/// The key set that the issuer publishes.
pub(crate) fn published_keys() -> String {
    let mut jwk =
        Jwk::from_encoding_key(&published(), Algorithm::ES256).expect("the key has a public one");
    jwk.common.key_id = Some("published".to_owned());
    json!({ "keys": [jwk] }).to_string()
}
