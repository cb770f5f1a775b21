//! Each reason for which a token is refused, and that the store holds no secret.

use std::str::FromStr as _;

use super::*;
use crate::store::embedded::EmbeddedStore;

const FINGERPRINT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn tokens() -> (tempfile::TempDir, Arc<EmbeddedStore>, Tokens) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
    (folder, Arc::clone(&store), Tokens::new(store))
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn web() -> JoinGrant {
    JoinGrant { namespace: "demo".into(), service_account: "web".into() }
}

fn fault<T: std::fmt::Debug>(result: Result<T, TokenError>) -> String {
    match result {
        Err(TokenError::Fault(fault)) => format!("{}: {fault}", fault.reason()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_join_token_grants_an_identity_until_it_expires() {
    let (_folder, _, tokens) = tokens();
    let token = tokens.create_join(web(), Duration::from_secs(60), FINGERPRINT, at(0)).await.unwrap().token;
    assert!(token.starts_with("pillion-join.") && token.ends_with(FINGERPRINT));
    assert_eq!(tokens.verify_join(&token, at(59)).await.unwrap(), web());
    assert_eq!(
        fault(tokens.verify_join(&token, at(60)).await),
        "token-expired: the token has expired at 2027-01-15T08:01:00Z"
    );
}

#[tokio::test]
async fn every_refusal_says_why() {
    let (_folder, _, tokens) = tokens();
    let join = tokens.create_join(web(), DEFAULT_JOIN_TTL, FINGERPRINT, at(0)).await.unwrap();
    let viewer = tokens.create_api(Role::Viewer, None, None, at(0)).await.unwrap();
    let operator = tokens.create_api(Role::Operator, Some("demo".into()), None, at(0)).await.unwrap();

    let malformed = [
        ("", "it begins with neither pillion-join nor pillion-api"),
        ("Bearer x", "it begins with neither pillion-join nor pillion-api"),
        ("pillion-join.a.b", "a join token has four parts between dots"),
        ("pillion-api.a", "an API token has three parts between dots"),
        ("pillion-api.a.b", "its second part is no token id"),
        (&viewer.token[..viewer.token.len() - 1], "its secret is cut short or changed"),
        (&join.token[..join.token.len() - 1], "its fourth part is no SHA-256 fingerprint"),
    ];
    for (text, why) in malformed {
        let expected = format!("token-malformed: the token is malformed: {why}");
        assert_eq!(fault(tokens.verify_join(text, at(1)).await), expected, "{text}");
    }

    let other = TokenText::random(None);
    let unknown = format!("token-unknown: the token {} is unknown here", other.id);
    assert_eq!(fault(tokens.authorize(&other.to_string(), Role::Viewer, None, at(1)).await), unknown);
    // The right id with another secret is as unknown as no id at all.
    let secret = TokenText::random(None).to_string().rsplit_once('.').unwrap().1.to_owned();
    let forged = format!("pillion-api.{}.{secret}", viewer.info.id);
    assert!(fault(tokens.authorize(&forged, Role::Viewer, None, at(1)).await).starts_with("token-unknown"));

    assert_eq!(
        fault(tokens.verify_join(&viewer.token, at(1)).await),
        "token-wrong-kind: this needs a join token, but was sent an API token"
    );
    assert_eq!(
        fault(tokens.authorize(&join.token, Role::Viewer, None, at(1)).await),
        "token-wrong-kind: this needs an API token, but was sent a join token"
    );
    assert_eq!(
        fault(tokens.authorize(&viewer.token, Role::Operator, Some("demo"), at(1)).await),
        "token-lacks-role: this needs the role operator, the token has viewer"
    );
    assert!(tokens.authorize(&operator.token, Role::Operator, Some("demo"), at(1)).await.is_ok());
    assert_eq!(
        fault(tokens.authorize(&operator.token, Role::Operator, Some("shop"), at(1)).await),
        "token-lacks-namespace: this is in namespace shop, the token is for demo only"
    );
    assert_eq!(
        fault(tokens.authorize(&operator.token, Role::Viewer, None, at(1)).await),
        "token-lacks-namespace: this is about all namespaces, the token is for demo only"
    );

    assert!(tokens.revoke(&viewer.info.id, at(2)).await.unwrap().is_some());
    assert_eq!(tokens.revoke("000000000000", at(2)).await.unwrap(), None);
    assert_eq!(
        fault(tokens.authorize(&viewer.token, Role::Viewer, None, at(3)).await),
        "token-revoked: the token was revoked at 2027-01-15T08:00:02Z"
    );
}

#[tokio::test]
async fn the_store_has_no_secret_and_forgets_what_is_long_over() {
    let (_folder, store, tokens) = tokens();
    let created = tokens.create_join(web(), DEFAULT_JOIN_TTL, FINGERPRINT, at(0)).await.unwrap();
    let secret = created.token.split('.').nth(2).unwrap();
    let stored = store.get(Bucket::Tokens, &created.info.id).await.unwrap().unwrap();
    assert!(!String::from_utf8(stored.value).unwrap().contains(secret));
    let kept = TokenText::from_str(&created.token).unwrap();
    assert!(!format!("{kept:?}").contains(secret));

    tokens.create_api(Role::Viewer, None, None, at(3600 + 6 * 86400)).await.unwrap();
    assert_eq!(tokens.list().await.unwrap().len(), 2);
    tokens.create_api(Role::Viewer, None, None, at(3600 + 8 * 86400)).await.unwrap();
    let kept: Vec<_> = tokens.list().await.unwrap().into_iter().map(|it| it.purpose).collect();
    assert_eq!(kept, vec![Purpose::Api { role: Role::Viewer, namespace: None }; 2]);
}

#[tokio::test]
async fn the_admin_token_is_made_once_and_mended_when_lost() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, _, tokens) = tokens();
    let path = tokens.ensure_admin(folder.path(), at(0)).await.unwrap();
    let first = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(tokens.authorize(&first, Role::Admin, None, at(1)).await.is_ok());

    tokens.ensure_admin(folder.path(), at(2)).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
    std::fs::write(&path, "spoiled").unwrap();
    tokens.ensure_admin(folder.path(), at(3)).await.unwrap();
    let second = std::fs::read_to_string(&path).unwrap();
    assert_ne!(first, second);
    assert!(tokens.authorize(&second, Role::Admin, None, at(4)).await.is_ok());
}
