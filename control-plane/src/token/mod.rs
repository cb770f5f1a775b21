//! Join tokens for workloads and API tokens for people and tools.
//!
//! A token is told once, to who asked for it. The store has a digest of its secret only: reading the store gives nobody
//! a token.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod fault;
mod text;

pub use fault::{TokenError, TokenFault};
pub use text::{API_PREFIX, JOIN_PREFIX, TokenText};

use crate::store::{Bucket, Change, Entry, Expect, Store, StoreError};

/// How long a join token can be used where nobody says otherwise.
pub const DEFAULT_JOIN_TTL: Duration = Duration::from_secs(3600);
/// The longest life of any token that expires.
pub const MAX_TTL: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// How long a token that no longer works is remembered, so that its bearer is told why.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The admin token's file in the data directory.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// What the bearer of an API token may do. Each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Changes documents.
    Operator,
    /// Makes and revokes tokens.
    Admin,
}

impl Role {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// What a join token lets a workload become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGrant {
    /// The namespace of its identity.
    pub namespace: String,
    /// The service account of its identity.
    pub service_account: String,
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Purpose {
    /// A workload's first certificate.
    Join {
        /// The namespace of its identity.
        namespace: String,
        /// The service account of its identity.
        service_account: String,
    },
    /// The REST API.
    Api {
        /// What its bearer may do.
        role: Role,
        /// The only namespace it may do so in; absent: all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
    },
}

/// A token as the server knows it, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenInfo {
    /// Its name; the second part of its text.
    pub id: String,
    /// What it is for.
    #[serde(flatten)]
    pub purpose: Purpose,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Milliseconds since the Unix epoch; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Milliseconds since the Unix epoch; absent: not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ms: Option<u64>,
}

/// As stored.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    info: TokenInfo,
    /// SHA-256 of the secret, hexadecimal.
    digest: String,
}

/// A new token: the only time its text is seen.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// What its bearer sends.
    pub token: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// Without the secret, for logs.
impl std::fmt::Debug for Created {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Created").field("info", &self.info).finish_non_exhaustive()
    }
}

/// All tokens of a store.
#[derive(Clone)]
pub struct Tokens {
    store: Arc<dyn Store>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// The tokens of a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Makes a join token. `root_fingerprint` is the SHA-256 of the trust anchor, hexadecimal: by it the sidecar knows
    /// the control plane on its first call.
    ///
    /// # Errors
    /// The store's.
    pub async fn create_join(
        &self,
        grant: JoinGrant,
        ttl: Duration,
        root_fingerprint: &str,
        now: SystemTime,
    ) -> Result<Created, StoreError> {
        let JoinGrant { namespace, service_account } = grant;
        let purpose = Purpose::Join { namespace, service_account };
        self.create(purpose, Some(ttl), Some(root_fingerprint), now).await
    }

    /// Makes an API token; with no `ttl` it works until it is revoked.
    ///
    /// # Errors
    /// The store's.
    pub async fn create_api(
        &self,
        role: Role,
        namespace: Option<String>,
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<Created, StoreError> {
        self.create(Purpose::Api { role, namespace }, ttl, None, now).await
    }

    async fn create(
        &self,
        purpose: Purpose,
        ttl: Option<Duration>,
        root_fingerprint: Option<&str>,
        now: SystemTime,
    ) -> Result<Created, StoreError> {
        let text = TokenText::random(root_fingerprint);
        let info = TokenInfo {
            id: text.id.clone(),
            purpose,
            created_ms: milliseconds(now),
            expires_ms: ttl.map(|ttl| milliseconds(now + ttl.min(MAX_TTL))),
            revoked_ms: None,
        };
        let record = Record { info: info.clone(), digest: text.digest() };
        let mut changes = vec![Change {
            bucket: Bucket::Tokens,
            key: info.id.clone(),
            value: Some(serde_json::to_vec(&record).expect("a record has string keys only")),
            expect: Expect::Absent,
        }];
        // The place to forget old ones: their number grows only here.
        changes.extend(self.store.list(Bucket::Tokens).await?.iter().filter_map(|entry| forget(entry, now)));
        self.store.commit(changes).await?;
        Ok(Created { token: text.to_string(), info })
    }

    /// What a join token grants.
    ///
    /// # Errors
    /// Why it grants nothing.
    pub async fn verify_join(&self, token: &str, now: SystemTime) -> Result<JoinGrant, TokenError> {
        match self.verify(token, now).await?.purpose {
            Purpose::Join { namespace, service_account } => Ok(JoinGrant { namespace, service_account }),
            Purpose::Api { .. } => {
                Err(TokenFault::WrongKind { needed: "a join token", found: "an API token" }.into())
            }
        }
    }

    /// Whether an API token lets its bearer do what needs `role` in `namespace` (`None`: in all of them).
    ///
    /// # Errors
    /// Why it does not.
    pub async fn authorize(
        &self,
        token: &str,
        role: Role,
        namespace: Option<&str>,
        now: SystemTime,
    ) -> Result<TokenInfo, TokenError> {
        let info = self.verify(token, now).await?;
        match &info.purpose {
            Purpose::Join { .. } => {
                Err(TokenFault::WrongKind { needed: "an API token", found: "a join token" }.into())
            }
            Purpose::Api { role: has, .. } if *has < role => {
                Err(TokenFault::LacksRole { needed: role, has: *has }.into())
            }
            Purpose::Api { namespace: Some(only), .. } if namespace != Some(only) => {
                Err(TokenFault::LacksNamespace { needed: namespace.map(str::to_owned), has: only.clone() }
                    .into())
            }
            Purpose::Api { .. } => Ok(info),
        }
    }

    async fn verify(&self, token: &str, now: SystemTime) -> Result<TokenInfo, TokenError> {
        let text: TokenText = token.parse()?;
        let entry = self.store.get(Bucket::Tokens, &text.id).await?;
        let record = entry.and_then(|entry| serde_json::from_slice::<Record>(&entry.value).ok());
        Ok(check(&text, record, now)?)
    }

    /// Every token that is remembered, by age.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self) -> Result<Vec<TokenInfo>, StoreError> {
        let entries = self.store.list(Bucket::Tokens).await?;
        let mut infos: Vec<TokenInfo> = entries
            .iter()
            .filter_map(|entry| serde_json::from_slice::<Record>(&entry.value).ok())
            .map(|record| record.info)
            .collect();
        infos.sort_by(|one, other| (one.created_ms, &one.id).cmp(&(other.created_ms, &other.id)));
        Ok(infos)
    }

    /// Makes a token useless at once. Gives it as it is then; `None`: there is none of that id.
    ///
    /// # Errors
    /// The store's.
    pub async fn revoke(&self, id: &str, now: SystemTime) -> Result<Option<TokenInfo>, StoreError> {
        let Some(entry) = self.store.get(Bucket::Tokens, id).await? else { return Ok(None) };
        let Ok(mut record) = serde_json::from_slice::<Record>(&entry.value) else { return Ok(None) };
        if record.info.revoked_ms.is_none() {
            record.info.revoked_ms = Some(milliseconds(now));
            let value = serde_json::to_vec(&record).expect("a record has string keys only");
            let expect = Expect::Revision(entry.revision);
            self.store
                .commit(vec![Change { bucket: Bucket::Tokens, key: entry.key, value: Some(value), expect }])
                .await?;
        }
        Ok(Some(record.info))
    }

    /// Sees to it that `<data_dir>/admin.token` holds a working admin token, readable by its owner only, and gives the
    /// file's path. Who may write there owns the mesh already; so a lost token is mended by a restart.
    ///
    /// # Errors
    /// The store's or the disk's.
    pub async fn ensure_admin(&self, data_dir: &Path, now: SystemTime) -> Result<PathBuf, AdminTokenError> {
        let path = data_dir.join(ADMIN_TOKEN_FILE);
        if let Ok(existing) = tokio::fs::read_to_string(&path).await
            && self.authorize(existing.trim(), Role::Admin, None, now).await.is_ok()
        {
            return Ok(path);
        }
        let created = self.create_api(Role::Admin, None, None, now).await?;
        let write = {
            let path = path.clone();
            move || write_private(&path, &format!("{}\n", created.token))
        };
        let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(error.into()));
        written.map_err(|source| AdminTokenError::Write { path: path.clone(), source })?;
        Ok(path)
    }
}

/// Why there is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The token's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Never readable by others, not for a moment, and never half-written.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Whether a token is what it says and still good. Whether it exists and whether its secret is right are told apart from
/// nobody: both are "unknown".
fn check(text: &TokenText, record: Option<Record>, now: SystemTime) -> Result<TokenInfo, TokenFault> {
    let unknown = || TokenFault::Unknown { id: text.id.clone() };
    let record = record.ok_or_else(unknown)?;
    let right =
        aws_lc_rs::constant_time::verify_slices_are_equal(record.digest.as_bytes(), text.digest().as_bytes());
    let is_join = matches!(record.info.purpose, Purpose::Join { .. });
    if right.is_err() || is_join != text.root_fingerprint.is_some() {
        return Err(unknown());
    }
    let info = record.info;
    if let Some(at) = info.revoked_ms {
        return Err(TokenFault::Revoked { at: time(at) });
    }
    match info.expires_ms {
        Some(at) if at <= milliseconds(now) => Err(TokenFault::Expired { at: time(at) }),
        _ => Ok(info),
    }
}

/// Deletes a token that has not worked for long, or that nobody can read.
fn forget(entry: &Entry, now: SystemTime) -> Option<Change> {
    let ended = match serde_json::from_slice::<Record>(&entry.value) {
        Ok(record) => record.info.revoked_ms.or(record.info.expires_ms)?,
        Err(_) => 0,
    };
    let forgotten = time(ended) + REMEMBERED < now;
    forgotten.then(|| Change {
        bucket: Bucket::Tokens,
        key: entry.key.clone(),
        value: None,
        expect: Expect::Any,
    })
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests;
