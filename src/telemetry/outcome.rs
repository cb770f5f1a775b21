//! How a request ended, as it is counted.

use http::StatusCode;

use crate::error::Reason;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// With this HTTP status.
    Status(StatusCode),
    /// With this gRPC status; more than 16 counts as 2 (unknown).
    Grpc(u8),
    /// By our own refusal.
    Refused(Reason),
    /// The caller went away.
    Cancelled,
}

/// Slots for [`Outcome`]s: HTTP classes 1 to 5, gRPC codes 0 to 16, refused, cancelled.
pub(super) const OUTCOMES: usize = 5 + 17 + 2;

impl Outcome {
    pub(super) fn slot(self) -> usize {
        match self {
            Self::Status(status) => usize::from(status.as_u16() / 100).clamp(1, 5) - 1,
            Self::Grpc(code) => 5 + usize::from(if code > 16 { 2 } else { code }),
            Self::Refused(_) => 22,
            Self::Cancelled => 23,
        }
    }

    /// The label of a slot.
    pub fn label(slot: usize) -> &'static str {
        const LABELS: [&str; OUTCOMES] = [
            "1xx",
            "2xx",
            "3xx",
            "4xx",
            "5xx",
            "grpc-0",
            "grpc-1",
            "grpc-2",
            "grpc-3",
            "grpc-4",
            "grpc-5",
            "grpc-6",
            "grpc-7",
            "grpc-8",
            "grpc-9",
            "grpc-10",
            "grpc-11",
            "grpc-12",
            "grpc-13",
            "grpc-14",
            "grpc-15",
            "grpc-16",
            "refused",
            "cancelled",
        ];
        LABELS[slot]
    }

    /// Whether what is counted in a slot was not answered as asked, whoever is to blame.
    pub(super) fn is_error(slot: usize) -> bool {
        // 4xx and 5xx, gRPC codes from 1 on, and refusals.
        matches!(slot, 3 | 4 | 6..=22)
    }

    /// Whether the callee, or the mesh, is to blame.
    pub fn is_failure(self) -> bool {
        match self {
            Self::Status(status) => status.is_server_error(),
            // Unknown, deadline exceeded, internal, unavailable, data loss.
            Self::Grpc(code) => matches!(code, 2 | 4 | 13 | 14 | 15 | 17..),
            Self::Refused(reason) => reason.status().is_server_error(),
            Self::Cancelled => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_was_asked_for_is_an_error() {
        let fine: Vec<&str> =
            (0..OUTCOMES).filter(|slot| !Outcome::is_error(*slot)).map(Outcome::label).collect();
        assert_eq!(fine, ["1xx", "2xx", "3xx", "grpc-0", "cancelled"]);
    }
}
