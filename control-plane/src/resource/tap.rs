//! `tap` of a `MeshConfig`: who is shown what of live requests.

use pillion_api::tap::{MAX_HEADERS, SECRET_HEADERS, is_secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::{Faults, Path};

/// What is shown of live requests, where anything is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tap {
    /// Whether live requests are shown at all (`pillion tap`, the dashboard), to whom a token allows it. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Headers of requests that are shown, such as `x-request-id`; at most 16. Never `authorization`, `cookie`,
    /// `proxy-authorization` and `set-cookie`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

impl Tap {
    pub(super) fn check(&self, at: &Path, faults: &mut Faults) {
        let at = at.field("headers");
        if self.headers.len() > MAX_HEADERS {
            faults.add(&at, format!("must be at most {MAX_HEADERS}, are {}", self.headers.len()));
        }
        for (index, name) in self.headers.iter().enumerate() {
            if http::HeaderName::try_from(name).is_err() {
                faults.add(&at.index(index), format!("must be the name of a header (RFC 9110), is {name:?}"));
            } else if is_secret(name) {
                let never = SECRET_HEADERS.join(", ");
                faults.add(&at.index(index), format!("is never shown, as it carries credentials ({never})"));
            }
        }
    }

    /// Whether live requests are shown at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// The headers that are shown, in lower case, each once.
    pub fn shown_headers(&self) -> Vec<String> {
        let mut names: Vec<String> = self.headers.iter().map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What is in force, with every default filled in.
    pub fn in_force(&self) -> Self {
        Self { enabled: Some(self.is_enabled()), headers: self.shown_headers() }
    }
}
