//! Conditions, durability, and what a killed writer leaves behind.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;

fn put(key: &str, value: &str, expect: Expect) -> Change {
    Change { bucket: Bucket::Documents, key: key.into(), value: Some(value.into()), expect }
}

#[tokio::test]
async fn a_value_carries_the_revision_that_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    assert_eq!(store.get(Bucket::Documents, "a").await.unwrap(), None);
    assert_eq!(store.list(Bucket::Documents).await.unwrap(), vec![]);

    assert_eq!(store.commit(vec![put("a", "1", Expect::Absent)]).await.unwrap(), 1);
    assert_eq!(
        store.commit(vec![put("b", "2", Expect::Any), put("a", "3", Expect::Revision(1))]).await.unwrap(),
        2
    );
    let listed = store.list(Bucket::Documents).await.unwrap();
    assert_eq!(
        listed,
        vec![
            Entry { key: "a".into(), value: b"3".to_vec(), revision: 2 },
            Entry { key: "b".into(), value: b"2".to_vec(), revision: 2 },
        ]
    );
    assert_eq!(store.list(Bucket::Tokens).await.unwrap(), vec![], "buckets are apart");
}

#[test]
fn nobody_else_can_read_the_file_whatever_its_folder_allows() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = folder.path().join(FILE_NAME);
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    drop(EmbeddedStore::open(folder.path()).unwrap());
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    drop(EmbeddedStore::open(folder.path()).unwrap());
    assert_eq!(mode(), 0o600, "what an earlier release left open is closed");
}

#[tokio::test]
async fn one_failed_condition_undoes_the_whole_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    store.commit(vec![put("a", "1", Expect::Absent)]).await.unwrap();
    let revisions = store.revisions(Bucket::Documents);

    let refused = store.commit(vec![put("b", "2", Expect::Absent), put("a", "3", Expect::Absent)]).await;
    assert!(
        matches!(&refused, Err(StoreError::Conflict { key, expected: Expect::Absent, found: Some(1) }) if key == "a"),
        "{refused:?}"
    );
    let refused = store.commit(vec![put("c", "3", Expect::Revision(7))]).await;
    assert!(matches!(refused, Err(StoreError::Conflict { found: None, .. })), "{refused:?}");

    assert_eq!(store.get(Bucket::Documents, "b").await.unwrap(), None);
    assert_eq!(*revisions.borrow(), 1, "a refused transaction takes no revision");
}

#[tokio::test]
async fn watchers_see_new_revisions_and_reopening_continues_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let mut revisions = store.revisions(Bucket::Documents);
    store.commit(vec![put("a", "1", Expect::Any)]).await.unwrap();
    revisions.changed().await.unwrap();
    assert_eq!(*revisions.borrow_and_update(), 1);
    drop(store);

    let store = EmbeddedStore::open(folder.path()).unwrap();
    assert_eq!(*store.revisions(Bucket::Documents).borrow(), 1);
    let delete =
        Change { bucket: Bucket::Documents, key: "a".into(), value: None, expect: Expect::Revision(1) };
    assert_eq!(store.commit(vec![delete]).await.unwrap(), 2);
    assert_eq!(store.get(Bucket::Documents, "a").await.unwrap(), None);
}

#[tokio::test]
async fn what_is_written_elsewhere_wakes_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let (documents, workloads) = (store.revisions(Bucket::Documents), store.revisions(Bucket::Workloads));
    let workload = Change { bucket: Bucket::Workloads, ..put("w", "1", Expect::Any) };
    assert_eq!(store.commit(vec![workload.clone()]).await.unwrap(), 1);
    assert!(!documents.has_changed().unwrap());
    assert!(workloads.has_changed().unwrap());
    assert_eq!(store.commit(vec![put("a", "1", Expect::Any), workload]).await.unwrap(), 2);
    assert_eq!((*documents.borrow(), *workloads.borrow()), (2, 2), "one transaction, one revision");
    assert_eq!(store.commit(Vec::new()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_second_opener_is_told_which_file_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let _store = EmbeddedStore::open(folder.path()).unwrap();
    let refused = EmbeddedStore::open(folder.path()).unwrap_err().to_string();
    let file = folder.path().join(FILE_NAME);
    assert!(refused.starts_with(&format!("{} is in use by another process", file.display())), "{refused}");
}

#[test]
fn a_file_that_is_no_store_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE_NAME), b"not a database".repeat(1000)).unwrap();
    let refused = EmbeddedStore::open(folder.path()).unwrap_err().to_string();
    assert!(refused.contains(FILE_NAME) && refused.starts_with("cannot open"), "{refused}");
}

const CHILD_FOLDER: &str = "PILLION_TEST_STORE_FOLDER";

/// Not a test of its own: the process that `a_killed_writer_loses_nothing_it_acknowledged` kills.
#[tokio::test]
#[ignore = "run as a child process by a_killed_writer_loses_nothing_it_acknowledged"]
#[expect(clippy::disallowed_methods, reason = "how the parent test tells this process its folder")]
async fn writer_process() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = EmbeddedStore::open(Path::new(&folder)).unwrap();
    for round in 0_u64.. {
        let value = format!("{round} {}", "x".repeat(10_000));
        let changes = vec![put("left", &value, Expect::Any), put("right", &value, Expect::Any)];
        let revision = store.commit(changes).await.unwrap();
        println!("committed {revision} {round}");
    }
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "store::embedded::tests::writer_process"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The test harness prints its own "test …" prefix on the first line.
        let mut acknowledged = BufReader::new(child.stdout.take().unwrap()).lines().filter_map(|line| {
            let line = line.unwrap();
            let numbers = line.split("committed ").nth(1)?;
            let (revision, round) = numbers.split_once(' ')?;
            Some((revision.parse::<u64>().unwrap(), round.parse::<u64>().unwrap()))
        });
        let before = acknowledged.nth(20).expect("the writer commits");
        child.kill().unwrap();
        // What it acknowledged before it died may still be in the pipe.
        let (revision, round) = acknowledged.last().unwrap_or(before);
        child.wait().unwrap();

        let store = EmbeddedStore::open(folder.path()).unwrap();
        assert!(*store.revisions(Bucket::Documents).borrow() >= revision);
        let left = store.get(Bucket::Documents, "left").await.unwrap().unwrap();
        let right = store.get(Bucket::Documents, "right").await.unwrap().unwrap();
        assert_eq!(left.value, right.value, "both keys of a transaction or none");
        let text = String::from_utf8(left.value).unwrap();
        let stored: u64 = text.split(' ').next().unwrap().parse().unwrap();
        assert!(stored >= round, "acknowledged {round}, found {stored}");
    }
}
