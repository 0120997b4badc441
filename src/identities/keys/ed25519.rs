//! Which 32 bytes are a point of Ed25519 that can be a public key (RFC 8032, 5.1.3).

use num_bigint::BigUint;

/// A key of small order verifies signatures that anyone can compute.
const SMALL_ORDER: &str = "its Ed25519 point has a small order, so anyone could sign tokens";

const INVALID: &str = "its Ed25519 key is not a point on the curve";

/// The y-coordinates of the eight points whose order divides 8, apart from 0, 1 and -1.
const ORDER_8: [&[u8]; 2] = [
    b"05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826",
    b"7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7",
];

pub(super) fn check(point: &[u8; 32]) -> Result<(), &'static str> {
    let one = BigUint::from(1_u8);
    let prime = (&one << 255) - 19_u8;
    let (square_root, inverse) = ((&prime - 1_u8) / 2_u8, &prime - 2_u8);
    let mut bytes = *point;
    // The sign of x.
    bytes[31] &= 0x7f;
    let y = BigUint::from_bytes_le(&bytes);
    if y >= prime {
        return Err(INVALID);
    }
    let order_8 = ORDER_8.map(|hex| BigUint::parse_bytes(hex, 16));
    if y <= one || y == &prime - 1_u8 || order_8.contains(&Some(y.clone())) {
        return Err(SMALL_ORDER);
    }
    // x² = (y² - 1) / (d y² + 1) with d = -121665 / 121666. A number is a square if its power is 1 (Euler's criterion).
    let d = (&prime - 121_665_u32) * BigUint::from(121_666_u32).modpow(&inverse, &prime) % &prime;
    let y_squared = &y * &y % &prime;
    let denominator = (d * &y_squared + 1_u8) % &prime;
    let x_squared = (y_squared + &prime - 1_u8) * denominator.modpow(&inverse, &prime) % &prime;
    if x_squared.modpow(&square_root, &prime) == one {
        Ok(())
    } else {
        Err(INVALID)
    }
}
