//! Renewal: keeps an identity's credential fresh for as long as the process runs.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, SystemTime};

use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bundle::TrustBundle;
use crate::credential::Credential;
use crate::error::Error;
use crate::key::PrivateKey;
use crate::tls::Identity;
use crate::validity::{BACKDATE, renew_after, retry_after};
use crate::verify::verify_own_chain;

/// How long one request to the authority may take.
const ISSUE_DEADLINE: Duration = Duration::from_secs(30);
/// How often a waiting renewal looks whether the machine has slept meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// The shortest life of a credential between two renewals: an authority that is about to end issues ever shorter ones.
const SOONEST: Duration = Duration::from_secs(1);

/// What an authority answers to a request.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first, then intermediates; DER.
    pub chain_der: Vec<Vec<u8>>,
    /// All roots of the trust domain; DER.
    pub trust_anchors_der: Vec<Vec<u8>>,
}

impl Issued {
    /// The credential and the bundle, checked: the key fits the chain, and the chain verifies under the bundle.
    pub fn into_material(self, key: PrivateKey) -> Result<(Credential, TrustBundle), Error> {
        let credential = Credential::new(self.chain_der, key)?;
        let trust_domain = credential.spiffe_id().trust_domain().clone();
        let bundle = TrustBundle::from_der(trust_domain, self.trust_anchors_der)?;
        verify_own_chain(&bundle, credential.chain(), credential.not_before(), credential.not_after())
            .map_err(|fault| Error::NotTrusted { problem: fault.to_string() })?;
        Ok((credential, bundle))
    }
}

/// How renewal is going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalStatus {
    /// When the current credential ends.
    pub not_after: SystemTime,
    /// How many times it was renewed.
    pub renewed: u64,
    /// How many tries failed in all.
    pub failures: u64,
    /// Why the last try failed; none once one succeeds.
    pub last_error: Option<String>,
}

impl RenewalStatus {
    /// Of an identity that was never renewed.
    pub fn new(identity: &Identity) -> Self {
        RenewalStatus { not_after: identity.not_after(), renewed: 0, failures: 0, last_error: None }
    }
}

/// Renews `identity`'s credential at half of its life, give or take, for ever; each time with a new key. A failed try
/// changes nothing and is repeated, ever more slowly, also when the credential has ended.
///
/// `issue` has a request (PKCS #10, DER) signed; it is given up after 30 seconds. Waits are measured on the monotonic
/// clock, as a wall clock that is set meanwhile must not move a renewal; it is only believed when it says that more
/// time went by, as after the machine slept. Drop the future to end it.
pub async fn keep_fresh<I, F, E>(
    identity: Identity,
    mut issue: I,
    status: watch::Sender<RenewalStatus>,
    mut rng: impl Rng,
) where
    I: FnMut(Vec<u8>) -> F,
    F: Future<Output = Result<Issued, E>>,
    E: Display,
{
    // Of one that was issued in an earlier run part of its life is over, unless the clock is behind.
    let credential = identity.credential();
    let remaining = credential.not_after().duration_since(SystemTime::now()).unwrap_or_default();
    let mut wait = renew_after(issued_for(&credential).min(remaining), &mut rng);
    let mut failures_in_a_row = 0;
    loop {
        elapse(wait).await;
        match renew(&identity, &mut issue).await {
            Ok(lifetime) => {
                failures_in_a_row = 0;
                wait = renew_after(lifetime, &mut rng).max(SOONEST);
                let not_after = identity.not_after();
                tracing::info!(
                    spiffe_id = %identity.spiffe_id(),
                    not_after = %humantime::format_rfc3339_seconds(not_after),
                    next_renewal = %humantime::format_duration(Duration::from_secs(wait.as_secs())),
                    "certificate renewed"
                );
                status.send_modify(|status| {
                    status.not_after = not_after;
                    status.renewed += 1;
                    status.last_error = None;
                });
            }
            Err(error) => {
                failures_in_a_row += 1;
                wait = retry_after(failures_in_a_row, &mut rng);
                tracing::warn!(
                    spiffe_id = %identity.spiffe_id(),
                    not_after = %humantime::format_rfc3339_seconds(identity.not_after()),
                    failures_in_a_row,
                    retry_in = ?wait,
                    error,
                    "certificate not renewed"
                );
                status.send_modify(|status| {
                    status.failures += 1;
                    status.last_error = Some(error);
                });
            }
        }
    }
}

/// One try. Returns for how long the new credential was issued.
async fn renew<I, F, E>(identity: &Identity, issue: &mut I) -> Result<Duration, String>
where
    I: FnMut(Vec<u8>) -> F,
    F: Future<Output = Result<Issued, E>>,
    E: Display,
{
    let key = PrivateKey::generate().map_err(|e| e.to_string())?;
    let request = key.csr_der().map_err(|e| e.to_string())?;
    let issued = match tokio::time::timeout(ISSUE_DEADLINE, issue(request)).await {
        Ok(Ok(issued)) => issued,
        Ok(Err(e)) => return Err(e.to_string()),
        Err(_) => return Err(format!("no answer within {} s", ISSUE_DEADLINE.as_secs())),
    };
    let (credential, bundle) = issued.into_material(key).map_err(|e| e.to_string())?;
    let lifetime = issued_for(&credential);
    identity.replace_credential(credential).map_err(|e| e.to_string())?;
    identity.replace_bundle(bundle);
    Ok(lifetime)
}

/// By the certificate's own account, so that it does not matter how far our clock is from the authority's.
fn issued_for(credential: &Credential) -> Duration {
    let span = credential.not_after().duration_since(credential.not_before()).unwrap_or_default();
    span.saturating_sub(BACKDATE)
}

/// Waits on the monotonic clock, which stands still while the machine sleeps; where the wall clock says that more
/// time went by, that counts.
async fn elapse(mut wait: Duration) {
    while !wait.is_zero() {
        let (started, wall) = (Instant::now(), SystemTime::now());
        tokio::time::sleep(wait.min(LOOK)).await;
        let passed = wall.elapsed().unwrap_or_default().max(started.elapsed());
        wait = wait.saturating_sub(passed);
    }
}
