//! Keys of issuers, and the sets that they publish.

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};

use crate::{helpers::Token, tokens::base64};

/// A key of an issuer.
pub(crate) struct SigningKey {
    pub(crate) kid: String,
    algorithm: Algorithm,
    private: EncodingKey,
    /// The public key of an EdDSA key, which the library does not derive.
    ed25519: Option<Vec<u8>>,
}

impl SigningKey {
    pub(crate) fn new(kid: &str, algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        let mut ed25519 = None;
        let private = match algorithm {
            Algorithm::ES256 => {
                let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
                EncodingKey::from_ec_der(pair.as_ref())
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                let public = Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap();
                ed25519 = Some(public.public_key().as_ref().to_vec());
                EncodingKey::from_ed_der(pair.as_ref())
            }
            _ => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
                EncodingKey::from_rsa_pem(pem("PRIVATE KEY", der.as_ref()).as_bytes()).unwrap()
            }
        };
        Self {
            kid: kid.to_owned(),
            algorithm,
            private,
            ed25519,
        }
    }

    /// The public key as the issuer publishes it.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.ed25519 {
            Some(public) => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(public) }),
            None => {
                let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
                serde_json::to_value(jwk).unwrap()
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(format!("{:?}", self.algorithm));
        jwk
    }

    /// Signs a token, which names this key.
    pub(crate) fn sign(&self, token: &Token) -> String {
        self.sign_by(self.algorithm, token)
    }

    /// Signs a token with another algorithm of the key's type.
    pub(crate) fn sign_by(&self, algorithm: Algorithm, token: &Token) -> String {
        let mut token = token.clone();
        token.header.alg = algorithm;
        token.header.kid = Some(self.kid.clone());
        token.sign_with(&self.private)
    }

    /// Signs a token whose header has another name of the algorithm.
    pub(crate) fn sign_named(&self, name: &str, token: &Token) -> String {
        let header = json!({ "alg": name, "kid": self.kid });
        let claims = Value::Object(token.claims.clone());
        let part = |value: &Value| base64(value.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = crypto::sign(message.as_bytes(), &self.private, self.algorithm);
        format!("{message}.{}", signature.unwrap())
    }

    /// Signs a token that names no key.
    pub(crate) fn sign_without_kid(&self, token: &Token) -> String {
        let mut token = token.clone();
        token.header.alg = self.algorithm;
        token.sign_with(&self.private)
    }
}

/// A key set of these keys.
pub(crate) fn set(keys: &[&SigningKey]) -> Value {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys })
}

/// A document in PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
