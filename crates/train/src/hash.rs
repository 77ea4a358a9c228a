//! SHA-256 in hexadecimal, and the hash of weights that records carry.
//!
//! Reference: NIST 2015, FIPS 180-4.

use std::fmt::Write;

use sde_nets::Weights;
use sha2::{Digest, Sha256};

use crate::Result;

/// The SHA-256 of bytes, 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The hash of weights: that of their safetensors file, which holds names, shapes, types and values in a fixed order
/// and nothing else. It is what `sha256sum` prints for the file in a checkpoint.
pub fn weights_hash(weights: &Weights) -> Result<String> {
    Ok(sha256(&weights.to_safetensors()?))
}
