//! Why a token is not accepted.

use std::{fmt, time::SystemTime};

use super::Role;
use crate::store::StoreError;

/// Why a token was not accepted, in words for its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// None was sent.
    Missing,
    /// It is not the text of a token.
    Malformed(&'static str),
    /// No such token was made here, or its secret is another.
    Unknown {
        /// The id it claims.
        id: String,
    },
    /// Its time is over.
    Expired {
        /// Since when.
        at: SystemTime,
    },
    /// Somebody ended it.
    Revoked {
        /// Since when.
        at: SystemTime,
    },
    /// A join token where an API token is needed, or the other way round.
    WrongKind {
        /// What would be right.
        needed: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// It is good, but not for this.
    LacksRole {
        /// The least role that may do this.
        needed: Role,
        /// Its role.
        has: Role,
    },
    /// It is good, but not here.
    LacksNamespace {
        /// Where this happens; `None`: in all namespaces.
        needed: Option<String>,
        /// The only one it is for.
        has: String,
    },
}

impl TokenFault {
    /// A name for metrics and machines.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "token-missing",
            Self::Malformed(_) => "token-malformed",
            Self::Unknown { .. } => "token-unknown",
            Self::Expired { .. } => "token-expired",
            Self::Revoked { .. } => "token-revoked",
            Self::WrongKind { .. } => "token-wrong-kind",
            Self::LacksRole { .. } => "token-lacks-role",
            Self::LacksNamespace { .. } => "token-lacks-namespace",
        }
    }

    /// True where the token is good and only does not reach this far.
    pub const fn is_forbidden(&self) -> bool {
        matches!(self, Self::LacksRole { .. } | Self::LacksNamespace { .. })
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |time: &SystemTime| humantime::format_rfc3339_seconds(*time);
        match self {
            Self::Missing => {
                write!(formatter, "no token was sent; this needs `authorization: Bearer <token>`")
            }
            Self::Malformed(why) => write!(formatter, "the token is malformed: {why}"),
            Self::Unknown { id } => write!(formatter, "the token {id} is unknown here"),
            Self::Expired { at: time } => write!(formatter, "the token has expired at {}", at(time)),
            Self::Revoked { at: time } => write!(formatter, "the token was revoked at {}", at(time)),
            Self::WrongKind { needed, found } => {
                write!(formatter, "this needs {needed}, but was sent {found}")
            }
            Self::LacksRole { needed, has } => {
                write!(formatter, "this needs the role {}, the token has {}", needed.name(), has.name())
            }
            Self::LacksNamespace { needed: Some(needed), has } => {
                write!(formatter, "this is in namespace {needed}, the token is for {has} only")
            }
            Self::LacksNamespace { needed: None, has } => {
                write!(formatter, "this is about all namespaces, the token is for {has} only")
            }
        }
    }
}

impl std::error::Error for TokenFault {}

/// Why it could not be said that a token is good.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is not.
    #[error(transparent)]
    Fault(#[from] TokenFault),
    /// Nobody can say now.
    #[error(transparent)]
    Store(#[from] StoreError),
}
