//! A JSON Web Key (RFC 7517, 4): whether it can verify tokens, and why not.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use policies::excerpt;
use serde_json::Value;

use super::{
    Key, algorithm, min_secret_bytes,
    public_key::{Curve, PublicKey},
};
use crate::identities::issuer::Issuer;

/// The types of keys that a set may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyTypes {
    /// The set is public.
    Public,
    /// The set is a file of the operator.
    PublicAndSecret,
}

/// Members that only a private key has (RFC 7518, 6.2.2 and 6.3.2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

enum Material {
    Public(PublicKey),
    Secret(Vec<u8>),
}

impl Material {
    fn allows(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Public(key) => key.allows(algorithm),
            Self::Secret(_) => algorithm.family() == AlgorithmFamily::Hmac,
        }
    }
}

/// Reads the `kid` and the key. Optional members are optional; one that is there must fit.
pub(super) fn parse(
    entry: &Value,
    configured: &[Algorithm],
    types: KeyTypes,
) -> Result<(Option<String>, Key), String> {
    if !entry.is_object() {
        return Err("it is not a JSON object".to_owned());
    }
    let kid = text(entry, "kid")?.map(str::to_owned);
    check_use(entry)?;
    let named = named_algorithm(entry, configured)?;
    let material = material(entry, types)?;
    let issuer = text(entry, "issuer")?.map(Issuer::published);
    let issuer = issuer
        .transpose()
        .map_err(|reason| format!("its `issuer`: {}", excerpt(&reason)))?;
    let algorithms: Vec<_> = configured
        .iter()
        .copied()
        .filter(|algorithm| named.is_none_or(|named| named == *algorithm))
        .filter(|algorithm| material.allows(*algorithm))
        .collect();
    if algorithms.is_empty() {
        return Err(match named {
            Some(named) => format!("its `alg` is {named:?}, which its type does not allow"),
            None => "its type allows none of the identity's algorithms".to_owned(),
        });
    }
    let key = match material {
        Material::Public(key) => Key::public(algorithms, key),
        Material::Secret(secret) => {
            let min_bytes = min_secret_bytes(&algorithms);
            if secret.len() < min_bytes {
                let bytes = secret.len();
                return Err(format!(
                    "it is too short: it must have at least {min_bytes} bytes and has {bytes}"
                ));
            }
            Key::secret(algorithms, DecodingKey::from_secret(&secret))
        }
    };
    Ok((kid, key.of_issuer(issuer)))
}

/// Returns a member, if the key has it. `null` means that it has none.
fn text<'a>(entry: &'a Value, name: &str) -> Result<Option<&'a str>, String> {
    match entry.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("its `{name}` is not a string")),
    }
}

fn required<'a>(entry: &'a Value, name: &str) -> Result<&'a str, String> {
    text(entry, name)?.ok_or_else(|| format!("it has no `{name}`"))
}

fn bytes(entry: &Value, name: &str) -> Result<Vec<u8>, String> {
    let decoded = URL_SAFE_NO_PAD.decode(required(entry, name)?);
    decoded.map_err(|_| format!("its `{name}` is not base64url without padding"))
}

fn check_use(entry: &Value) -> Result<(), String> {
    if let Some(other) = text(entry, "use")?.filter(|name| *name != "sig") {
        let other = excerpt(other);
        return Err(format!("its `use` is `{other}`, not `sig`"));
    }
    match entry.get("key_ops") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|name| name == "verify") => Ok(()),
        Some(Value::Array(_)) => Err("its `key_ops` do not contain `verify`".to_owned()),
        Some(_) => Err("its `key_ops` are not a list".to_owned()),
    }
}

fn named_algorithm(entry: &Value, configured: &[Algorithm]) -> Result<Option<Algorithm>, String> {
    let Some(name) = text(entry, "alg")? else {
        return Ok(None);
    };
    match algorithm::parse(name) {
        Some(named) if configured.contains(&named) => Ok(Some(named)),
        _ => {
            let name = excerpt(name);
            Err(format!(
                "its `alg` is `{name}`, which is not one of the identity's algorithms"
            ))
        }
    }
}

fn material(entry: &Value, types: KeyTypes) -> Result<Material, String> {
    let kty = required(entry, "kty")?;
    let has = |name: &&str| entry.get(name).is_some_and(|value| !value.is_null());
    if PRIVATE.iter().any(has) {
        return Err(
            "it is a private key; remove it, and replace the key pair if others could read it"
                .to_owned(),
        );
    }
    let curve = || required(entry, "crv");
    match kty {
        "RSA" => PublicKey::rsa(&bytes(entry, "n")?, &bytes(entry, "e")?).map(Material::Public),
        "EC" => {
            let name = curve()?;
            let curve = Curve::parse(name).ok_or_else(|| unsupported(name, "P-256 and P-384"))?;
            PublicKey::ec_coordinates(curve, &bytes(entry, "x")?, &bytes(entry, "y")?)
                .map(Material::Public)
        }
        "OKP" => match curve()? {
            "Ed25519" => PublicKey::ed25519(&bytes(entry, "x")?).map(Material::Public),
            other => Err(unsupported(other, "Ed25519")),
        },
        "oct" if types == KeyTypes::Public => Err(
            "it is a shared secret, which must not be published: anyone can sign tokens with it"
                .to_owned(),
        ),
        "oct" => Ok(Material::Secret(bytes(entry, "k")?)),
        other => Err(format!(
            "its `kty` is `{}`, which the gate does not support",
            excerpt(other)
        )),
    }
}

fn unsupported(curve: &str, supported: &str) -> String {
    format!(
        "its `crv` is `{}`; the gate supports {supported}",
        excerpt(curve)
    )
}
