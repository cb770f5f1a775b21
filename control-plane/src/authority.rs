//! The authority that signs workloads' certificates, and the control plane's own identity.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pillion_certs::{
    Authority, Identity, Issued, RenewalStatus, TrustDomain, authority::AuthorityPem, keep_fresh,
};
use rand::{SeedableRng, rngs::SmallRng};
use tokio::sync::watch;
use tracing::info;

use crate::{
    config::FilePair,
    error::Error,
    store::{Bucket, Change, Expect, Store, StoreError},
};

const CHAIN: &str = "chain.pem";
const KEY: &str = "key.pem";
/// What a workload may be given to know the control plane by.
pub const TRUST_ANCHORS_FILE: &str = "trust-anchors.pem";

/// The authority from its files, else from the store; made at first start.
///
/// # Errors
/// [`Error::Failed`] with everything that is wrong with the files or the store.
pub async fn load(
    files: Option<&FilePair>,
    store: &dyn Store,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Authority, Error> {
    match files {
        Some(files) => {
            let read = |path: &Path| {
                fs::read_to_string(path)
                    .map_err(|cause| Error::failed(format!("read {}", path.display()), cause))
            };
            let pem = AuthorityPem { chain: read(&files.certificate)?, key: read(&files.key)? };
            from_pem(&pem, trust_domain, now).map_err(|error| {
                Error::failed(format!("use the authority in {}", files.certificate.display()), error)
            })
        }
        None => stored(store, trust_domain, now).await,
    }
}

async fn stored(store: &dyn Store, trust_domain: &TrustDomain, now: SystemTime) -> Result<Authority, Error> {
    let failed = |error: StoreError| Error::failed("read the authority from the store", error);
    if let Some(pem) = read(store).await.map_err(failed)? {
        return from_pem(&pem, trust_domain, now)
            .map_err(|error| Error::failed("use the authority in the store", error));
    }
    let authority = Authority::generate(trust_domain.clone(), now)
        .map_err(|error| Error::failed("make an authority", error))?;
    let pem = authority.to_pem();
    let change = |key: &str, text: String| Change {
        bucket: Bucket::Authority,
        key: key.to_owned(),
        value: Some(text.into_bytes()),
        expect: Expect::Absent,
    };
    match store.commit(vec![change(CHAIN, pem.chain), change(KEY, pem.key)]).await {
        Ok(_) => {
            info!(%trust_domain, "made a new certificate authority");
            Ok(authority)
        }
        // Another server of the same store was first: there is one authority.
        Err(StoreError::Conflict { .. }) => {
            let pem = read(store).await.map_err(failed)?;
            let pem = pem.ok_or_else(|| Error::failed("read the authority", "half of it is missing"))?;
            from_pem(&pem, trust_domain, now)
                .map_err(|error| Error::failed("use the authority in the store", error))
        }
        Err(error) => Err(Error::failed("store the authority", error)),
    }
}

async fn read(store: &dyn Store) -> Result<Option<AuthorityPem>, StoreError> {
    let text = async |key| {
        let entry = store.get(Bucket::Authority, key).await?;
        Ok::<_, StoreError>(entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned()))
    };
    Ok(text(CHAIN).await?.zip(text(KEY).await?).map(|(chain, key)| AuthorityPem { chain, key }))
}

fn from_pem(
    pem: &AuthorityPem,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Authority, pillion_certs::Error> {
    Authority::from_pem(trust_domain.clone(), &pem.chain, &pem.key, now)
}

/// The control plane's own identity, fresh.
///
/// # Errors
/// When the authority cannot sign.
pub fn own_identity(authority: &Authority, validity: Duration, now: SystemTime) -> Result<Identity, Error> {
    let credential = authority
        .issue_control_plane(validity, now)
        .map_err(|error| Error::failed("sign the control plane's certificate", error))?;
    Ok(Identity::new(credential, authority.trust_bundle()))
}

/// Renews the control plane's own certificate in place, for ever.
pub async fn keep_own_identity(authority: Arc<Authority>, identity: Identity, validity: Duration) {
    let (status, _) = watch::channel(RenewalStatus::new(&identity));
    let issue = |csr: Vec<u8>| {
        let signed = authority.sign_control_plane(&csr, validity, SystemTime::now());
        std::future::ready(
            signed.map(|chain_der| Issued { chain_der, trust_anchors_der: anchors_der(&authority) }),
        )
    };
    keep_fresh(identity, issue, status, SmallRng::from_os_rng()).await;
}

/// Everything that a workload is to trust, DER.
pub fn anchors_der(authority: &Authority) -> Vec<Vec<u8>> {
    authority.trust_bundle().roots_der().map(<[u8]>::to_vec).collect()
}

/// Writes the trust anchors where tools and workloads of this machine find them.
///
/// # Errors
/// When the file cannot be written.
pub fn write_trust_anchors(authority: &Authority, data_dir: &Path) -> Result<(), Error> {
    let path = data_dir.join(TRUST_ANCHORS_FILE);
    fs::write(&path, authority.trust_bundle().to_pem())
        .map_err(|cause| Error::failed(format!("write {}", path.display()), cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::EmbeddedStore;

    fn trust_domain() -> TrustDomain {
        "mesh.local".parse().expect("a trust domain")
    }

    #[tokio::test]
    async fn the_authority_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = EmbeddedStore::open(folder.path()).expect("a store");
        let now = SystemTime::now();
        let made = load(None, &store, &trust_domain(), now).await.expect("made");
        let found = load(None, &store, &trust_domain(), now).await.expect("found");
        assert_eq!(made.trust_bundle(), found.trust_bundle());
        let other = "other.local".parse().expect("a trust domain");
        let fault = load(None, &store, &other, now).await.expect_err("it is of another trust domain");
        assert!(fault.to_string().contains("mesh.local"), "{fault}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_servers_own_certificate_is_renewed_in_place_and_still_brings_its_root() {
        let now = SystemTime::now();
        let authority = Arc::new(Authority::generate(trust_domain(), now).expect("an authority"));
        let validity = Duration::from_secs(24 * 3600);
        let identity = own_identity(&authority, validity, now).expect("an identity");
        let first = identity.credential();
        let mut changes = identity.subscribe();
        let renewing = keep_own_identity(Arc::clone(&authority), identity.clone(), validity);
        tokio::select! {
            () = renewing => unreachable!("renewal has no end"),
            changed = changes.changed() => changed.expect("the identity lives"),
        }
        let renewed = identity.credential();
        assert_ne!(renewed.chain_der().next(), first.chain_der().next());
        let root = anchors_der(&authority).remove(0);
        assert_eq!(renewed.chain_der().last(), Some(root.as_slice()));
    }

    #[tokio::test]
    async fn files_are_used_and_their_faults_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = EmbeddedStore::open(folder.path()).expect("a store");
        let now = SystemTime::now();
        let existing = Authority::generate(trust_domain(), now).expect("an authority");
        let files = FilePair { certificate: folder.path().join("ca.pem"), key: folder.path().join("ca.key") };
        let fault = load(Some(&files), &store, &trust_domain(), now).await.expect_err("no such files");
        assert!(fault.to_string().contains("ca.pem"), "{fault}");
        let pem = existing.to_pem();
        fs::write(&files.certificate, pem.chain).expect("written");
        fs::write(&files.key, pem.key).expect("written");
        let loaded = load(Some(&files), &store, &trust_domain(), now).await.expect("loaded");
        assert_eq!(loaded.trust_bundle(), existing.trust_bundle());
    }
}
