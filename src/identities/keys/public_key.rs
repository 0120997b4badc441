//! Public keys: which the gate can use, and why not the others.
//!
//! The library accepts any bytes as a key and fails only when it verifies a token. These checks find such keys, and keys
//! that would let anyone sign, before the gate uses them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use num_bigint::BigUint;
use simple_asn1::ASN1Block;

/// RFC 7518, 3.3.
const MIN_RSA_BITS: u64 = 2048;

/// The library verifies nothing with a longer modulus or a longer exponent.
const MAX_RSA_BITS: u64 = 8192;
const MAX_EXPONENT_BITS: u64 = 33;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    Rsa { modulus: BigUint, exponent: BigUint },
    Ec { curve: Curve, point: Vec<u8> },
    Ed25519([u8; 32]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    const ALL: [Self; 2] = [Self::P256, Self::P384];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|curve| curve.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    const fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
        }
    }

    const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
        }
    }
}

impl PublicKey {
    /// Leading zero bytes do not matter: RFC 7518, 6.3.1.1 forbids them, and some issuers have them.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (modulus, exponent) = (
            BigUint::from_bytes_be(modulus),
            BigUint::from_bytes_be(exponent),
        );
        let bits = modulus.bits();
        if bits < MIN_RSA_BITS {
            Err(format!(
                "its RSA modulus has {bits} bits; it must have at least {MIN_RSA_BITS}"
            ))
        } else if bits > MAX_RSA_BITS {
            Err(format!(
                "its RSA modulus has {bits} bits; the gate supports at most {MAX_RSA_BITS}"
            ))
        } else if !modulus.bit(0) {
            Err("its RSA modulus is even".to_owned())
        } else if exponent < BigUint::from(3_u8) || !exponent.bit(0) {
            Err("its RSA exponent is weak; it must be odd and at least 3".to_owned())
        } else if exponent.bits() > MAX_EXPONENT_BITS {
            Err(format!(
                "its RSA exponent has more than {MAX_EXPONENT_BITS} bits"
            ))
        } else {
            Ok(Self::Rsa { modulus, exponent })
        }
    }

    /// Restores leading zero bytes: RFC 7518, 6.2.1.2 requires them, and some issuers lack them.
    pub(super) fn ec_coordinates(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, String> {
        let mut point = vec![4];
        for coordinate in [x, y] {
            let coordinate = BigUint::from_bytes_be(coordinate).to_bytes_be();
            let missing = curve.coordinate_bytes().checked_sub(coordinate.len());
            let missing = missing.ok_or_else(|| not_on(curve))?;
            point.extend(std::iter::repeat_n(0, missing));
            point.extend(coordinate);
        }
        Self::ec(curve, point)
    }

    fn ec(curve: Curve, point: Vec<u8>) -> Result<Self, String> {
        match ParsedPublicKey::new(curve.verification(), &point) {
            Ok(_) => Ok(Self::Ec { curve, point }),
            Err(_) => Err(not_on(curve)),
        }
    }

    pub(super) fn ed25519(point: &[u8]) -> Result<Self, String> {
        let point = <[u8; 32]>::try_from(point)
            .map_err(|_| format!("its Ed25519 key has {} bytes instead of 32", point.len()))?;
        super::ed25519::check(&point)?;
        Ok(Self::Ed25519(point))
    }

    /// Reads a public key in PEM, for algorithms of one family.
    pub(super) fn from_pem(pem: &str, family: AlgorithmFamily) -> Result<Self, String> {
        let pem = super::pem::normalize(pem)?;
        let (key, name) = match family {
            AlgorithmFamily::Rsa => (DecodingKey::from_rsa_pem(pem.as_bytes()), "RSA"),
            AlgorithmFamily::Ec => (DecodingKey::from_ec_pem(pem.as_bytes()), "EC"),
            _ => (DecodingKey::from_ed_pem(pem.as_bytes()), "Ed25519"),
        };
        let not_a_key = || format!("is not an {name} public key in PEM");
        let key = key.map_err(|_| not_a_key())?;
        let content = key.try_get_as_bytes().map_err(|_| not_a_key())?;
        let key = match family {
            AlgorithmFamily::Rsa => {
                let (modulus, exponent) = rsa_integers(content).ok_or_else(not_a_key)?;
                Self::rsa(&modulus, &exponent)
            }
            AlgorithmFamily::Ec => {
                // The library does not say which curve the key is on.
                let mut keys = Curve::ALL
                    .map(|curve| Self::ec(curve, content.to_vec()))
                    .into_iter();
                keys.find(Result::is_ok).unwrap_or_else(|| {
                    Err("its point is not on P-256 or P-384, which are the curves that the gate supports".to_owned())
                })
            }
            _ => Self::ed25519(content),
        };
        key.map_err(|reason| format!("is not usable: {reason}"))
    }

    /// Whether the type of the key allows an algorithm.
    pub(super) fn allows(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => algorithm.family() == AlgorithmFamily::Rsa,
            Self::Ec { curve, .. } => algorithm == curve.algorithm(),
            Self::Ed25519(_) => algorithm == Algorithm::EdDSA,
        }
    }

    /// The name of the type, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec { curve, .. } => curve.name(),
            Self::Ed25519(_) => "Ed25519",
        }
    }

    pub(super) fn decoding(&self) -> DecodingKey {
        match self {
            Self::Rsa { modulus, exponent } => DecodingKey::from_rsa_raw_components(
                &modulus.to_bytes_be(),
                &exponent.to_bytes_be(),
            ),
            Self::Ec { point, .. } => DecodingKey::from_ec_der(point),
            Self::Ed25519(point) => DecodingKey::from_ed_der(point),
        }
    }
}

fn not_on(curve: Curve) -> String {
    format!("its point is not on the curve {}", curve.name())
}

/// Returns the modulus and the exponent of an RSAPublicKey (RFC 8017, A.1.1).
fn rsa_integers(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    match &simple_asn1::from_der(der).ok()?[..] {
        [ASN1Block::Sequence(_, integers)] => match &integers[..] {
            [
                ASN1Block::Integer(_, modulus),
                ASN1Block::Integer(_, exponent),
            ] => {
                let bytes =
                    |integer: &simple_asn1::BigInt| Some(integer.to_biguint()?.to_bytes_be());
                Some((bytes(modulus)?, bytes(exponent)?))
            }
            _ => None,
        },
        _ => None,
    }
}
