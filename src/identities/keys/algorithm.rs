//! The names of algorithms in tokens, in key sets and in the config (RFC 7518, 3.1).

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::config::fault::unknown;

/// The known names. `Ed25519` is the new name of `EdDSA` (RFC 9864).
const NAMES: [(&str, Algorithm); 13] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("Ed25519", Algorithm::EdDSA),
];

/// Returns the algorithm of a name, which clients and issuers write as well as operators.
pub(crate) fn parse(name: &str) -> Option<Algorithm> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, algorithm)| *algorithm)
}

/// An algorithm in the config.
struct NamedAlgorithm(Algorithm);

impl<'de> Deserialize<'de> for NamedAlgorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        parse(&name).map(Self).ok_or_else(|| {
            D::Error::custom(match &*name {
                "ES512" | "ES256K" => format!(
                    "`{name}` is not supported: the JWT library has no curve for it; let the issuer sign with ES256, ES384 or EdDSA"
                ),
                "Ed448" => "`Ed448` is not supported; let the issuer sign with Ed25519".to_owned(),
                "none" => "`none` accepts tokens that anyone can write; name the algorithm that the issuer signs with".to_owned(),
                _ => unknown("algorithm", &name, NAMES.map(|(known, _)| known)),
            })
        })
    }
}

/// Reads the algorithms of an identity, each once.
pub(crate) fn deserialize_algorithms<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Algorithm>, D::Error> {
    let names = Vec::<NamedAlgorithm>::deserialize(deserializer)?;
    let mut algorithms = Vec::with_capacity(names.len());
    for NamedAlgorithm(algorithm) in names {
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    Ok(algorithms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_an_algorithm_and_no_other_is() {
        for (name, algorithm) in NAMES {
            assert_eq!(parse(name), Some(algorithm));
        }
        for name in ["", "none", "hs256", "HS256 ", "ES512", "ES256K", "Ed448"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
