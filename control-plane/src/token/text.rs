//! A token's text: `pillion-join.<id>.<secret>.<root fingerprint>` or `pillion-api.<id>.<secret>`.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};

use super::TokenFault;

/// What the text of a join token begins with.
pub const JOIN_PREFIX: &str = "pillion-join";
/// What the text of an API token begins with.
pub const API_PREFIX: &str = "pillion-api";

/// Bytes of randomness in a secret.
const SECRET_BYTES: usize = 32;

/// A token's text in its parts.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText {
    /// Its name; no secret.
    pub id: String,
    secret: String,
    /// Only of a join token: the SHA-256 of the mesh's root certificate, hexadecimal.
    pub root_fingerprint: Option<String>,
}

impl TokenText {
    /// A new one that nobody can guess.
    pub(super) fn random(root_fingerprint: Option<&str>) -> Self {
        let mut random = rand::rng();
        let id: [u8; 6] = random.random();
        let secret: [u8; SECRET_BYTES] = random.random();
        Self {
            id: hexadecimal(&id),
            secret: BASE64_URL_SAFE_NO_PAD.encode(secret),
            root_fingerprint: root_fingerprint.map(str::to_owned),
        }
    }

    /// What is kept of the secret.
    pub(super) fn digest(&self) -> String {
        hexadecimal(&Sha256::digest(self.secret.as_bytes()))
    }
}

/// The whole text, secret and all.
impl fmt::Display for TokenText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, secret, root_fingerprint } = self;
        match root_fingerprint {
            Some(fingerprint) => write!(formatter, "{JOIN_PREFIX}.{id}.{secret}.{fingerprint}"),
            None => write!(formatter, "{API_PREFIX}.{id}.{secret}"),
        }
    }
}

/// Without the secret, for logs.
impl fmt::Debug for TokenText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenText").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for TokenText {
    type Err = TokenFault;

    fn from_str(text: &str) -> Result<Self, TokenFault> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let (id, secret, root_fingerprint) = match parts.as_slice() {
            [JOIN_PREFIX, id, secret, fingerprint] => (*id, *secret, Some(*fingerprint)),
            [API_PREFIX, id, secret] => (*id, *secret, None),
            [JOIN_PREFIX, ..] => {
                return Err(TokenFault::Malformed("a join token has four parts between dots"));
            }
            [API_PREFIX, ..] => {
                return Err(TokenFault::Malformed("an API token has three parts between dots"));
            }
            _ => return Err(TokenFault::Malformed("it begins with neither pillion-join nor pillion-api")),
        };
        if id.len() != 12 || !is_hexadecimal(id) {
            return Err(TokenFault::Malformed("its second part is no token id"));
        }
        if BASE64_URL_SAFE_NO_PAD.decode(secret).is_ok_and(|bytes| bytes.len() == SECRET_BYTES) {
            if root_fingerprint.is_some_and(|it| it.len() != 64 || !is_hexadecimal(it)) {
                return Err(TokenFault::Malformed("its fourth part is no SHA-256 fingerprint"));
            }
            let root_fingerprint = root_fingerprint.map(str::to_owned);
            return Ok(Self { id: id.to_owned(), secret: secret.to_owned(), root_fingerprint });
        }
        Err(TokenFault::Malformed("its secret is cut short or changed"))
    }
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
