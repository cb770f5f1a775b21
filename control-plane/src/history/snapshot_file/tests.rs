//! Whether the history comes back as it was, and whatever is wrong with the file or the disk is told and survived.

use std::time::Instant;

use proptest::prelude::*;

use super::{
    super::{
        EdgeKey, EventKind, SPAN_S, Series,
        tests::{NOW_MS, busy, count, delta},
    },
    *,
};

fn edge(index: usize) -> EdgeKey {
    EdgeKey { from: format!("from-{index}.demo"), to: "to.demo".into(), backend: "v1.demo".into() }
}

fn folder() -> (tempfile::TempDir, Snapshots) {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshots = Snapshots::new(folder.path());
    (folder, snapshots)
}

fn loaded(snapshots: &Snapshots, now_ms: i64) -> io::Result<State> {
    snapshots.read(now_ms).map(|state| state.expect("there is a file"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_series_comes_back_as_it_was(
        steps in prop::collection::vec((0..400i64, 1..9000u32, 0..90u64, 0..20u32), 1..60),
    ) {
        let mut series = Series::new(NOW_MS);
        let mut now = NOW_MS;
        for (seconds, interval, requests, spread) in steps {
            now += seconds * 1000;
            count(&mut series, now, interval, &delta(requests, spread));
        }
        let mut state = State::default();
        state.services.insert("payments.demo".into(), series.clone());
        state.edges.insert(edge(1), series.clone());
        state.policies.insert("payments.demo".into(), series.clone());
        state.instances.insert("uid".into(), series.clone());
        let (_folder, snapshots) = folder();
        let written = snapshots.write(&History { state: Mutex::new(state) }).expect("written");
        prop_assert_eq!(written.left_out, 0);
        let state = loaded(&snapshots, now).expect("read");
        prop_assert_eq!(state.services.get("payments.demo"), Some(&series));
        prop_assert_eq!(state.edges.get(&edge(1)), Some(&series));
        prop_assert_eq!(state.policies.get("payments.demo"), Some(&series));
        prop_assert_eq!(state.instances.get("uid"), Some(&series));
    }
}

#[test]
fn what_is_too_old_or_yet_to_come_is_not_read() {
    let (_folder, snapshots) = folder();
    let history = History::default();
    history.state().edges.insert(edge(1), busy(600));
    snapshots.save(&history);
    let requests = |at_s: i64| {
        let state = loaded(&snapshots, NOW_MS + at_s * 1000).expect("read");
        state.edges.get(&edge(1)).map(|series| series.recent(NOW_MS + at_s * 1000, SPAN_S).0.requests)
    };
    assert_eq!(requests(0), Some(600 * 20));
    assert_eq!(requests(SPAN_S - 300), Some(290 * 20 + 20), "the first five minutes are over");
    assert_eq!(requests(SPAN_S + 70), None);
    // A clock that was set back by five minutes and by a day.
    assert_eq!(requests(-300), Some(300 * 20));
    assert_eq!(requests(-86_400), None);
}

#[test]
fn a_damaged_file_or_one_of_another_version_is_not_used() {
    let (folder, snapshots) = folder();
    let history = History::default();
    assert!(snapshots.read(NOW_MS).expect("no file is no mistake").is_none());
    history.state().edges.insert(edge(1), busy(20));
    snapshots.save(&history);
    let path = folder.path().join(FILE_NAME);
    let good = fs::read(&path).expect("a file");
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        let error = snapshots.read(NOW_MS).err().map(|error| error.to_string());
        // Never a reason not to start.
        snapshots.load(NOW_MS).read(|state| assert_eq!(state.edges.is_empty(), error.is_some()));
        error
    };
    assert_eq!(error(&good), None);
    for at in (0..good.len()).step_by(97).chain([8, good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(error(&bad).is_some(), "byte {at}");
        assert!(error(&good[..at]).is_some(), "cut at {at}");
    }
    let mut later = good.clone();
    later[8] += 1;
    assert_eq!(error(&later).as_deref(), Some("the file has version 4; this release reads 3"));
    assert!(error(b"").is_some());
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    assert!(snapshots.load(NOW_MS).read(|state| state.edges.is_empty()));
    snapshots.save(&history);
}

#[test]
fn a_file_of_the_release_before_is_not_used_and_written_anew() {
    let (folder, snapshots) = folder();
    let path = folder.path().join(FILE_NAME);
    // As it wrote one in which there is nothing.
    let mut before = [&MAGIC[..], &2u32.to_le_bytes()].concat();
    before.extend_from_slice(digest::digest(&digest::SHA256, &before).as_ref());
    fs::write(&path, &before).expect("written");
    let error = snapshots.read(NOW_MS).err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("the file has version 2; this release reads 3"));
    let history = snapshots.load(NOW_MS);
    history.state().edges.insert(edge(1), busy(20));
    snapshots.save(&history);
    assert_eq!(loaded(&snapshots, NOW_MS).expect("read").edges.len(), 1);
}

#[test]
fn a_block_with_what_a_later_release_knows_is_not_cut_off_but_told() {
    let (folder, snapshots) = folder();
    let path = folder.path().join(FILE_NAME);
    let history = History::default();
    history.state().edges.insert(edge(1), busy(20));
    history.happened(EventKind::WorkloadJoined, None, None, "web-1 joined".into(), NOW_MS);
    let key = Key::Edge(edge(1));
    let mut good = vec![Vec::new(); 3];
    history.read(|state| {
        snapshot::write_events(state, &mut good[0]);
        let series = key.find(state).expect("it was inserted");
        snapshot::write_series(&key, series, Part::Coarse, &mut good[1]);
        snapshot::write_series(&key, series, Part::Fine, &mut good[2]);
    });
    let error = |blocks: &[Vec<u8>]| {
        let mut file = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        blocks.iter().for_each(|block| packed::put_bytes(&mut file, block));
        file.extend_from_slice(digest::digest(&digest::SHA256, &file).as_ref());
        fs::write(&path, &file).expect("written");
        snapshots.read(NOW_MS).err().map(|error| error.to_string())
    };
    assert_eq!(error(&good), None);
    let unknown = Some("the file has what this release does not know".to_owned());
    for index in 0..good.len() {
        let mut later = good.clone();
        later[index].push(0);
        assert_eq!(error(&later), unknown, "more in block {index}");
    }
    // Which of a series' buckets comes behind its name.
    let mut name = Vec::new();
    [edge(1).from, edge(1).to, edge(1).backend]
        .iter()
        .for_each(|it| packed::put_bytes(&mut name, it.as_bytes()));
    let mut later = good.clone();
    assert_eq!(later[2][1 + name.len()], Part::Fine as u8);
    later[2][1 + name.len()] = 2;
    assert_eq!(error(&later), unknown, "a third part");
}

#[test]
fn where_writing_breaks_off_the_file_of_before_holds() {
    let (folder, snapshots) = folder();
    let history = History::default();
    history.state().edges.insert(edge(1), busy(20));
    snapshots.save(&history);
    // The program ended in the middle of the next one.
    let draft = folder.path().join("history.new");
    let half = fs::read(folder.path().join(FILE_NAME)).expect("a file");
    fs::write(&draft, &half[..half.len() / 2]).expect("written");
    assert_eq!(loaded(&snapshots, NOW_MS).expect("read").edges.len(), 1);
    history.state().edges.insert(edge(2), busy(20));
    snapshots.save(&history);
    assert_eq!(loaded(&snapshots, NOW_MS).expect("read").edges.len(), 2);
    assert!(!draft.exists());
}

#[test]
fn a_full_disk_is_told_and_the_file_of_before_holds() {
    let (folder, snapshots) = folder();
    let history = History::default();
    history.state().edges.insert(edge(1), busy(20));
    snapshots.save(&history);
    history.state().edges.insert(edge(2), busy(20));
    let draft = folder.path().join("history.new");
    let fill = || std::os::unix::fs::symlink("/dev/full", &draft).expect("a link");
    fill();
    let error = snapshots.write(&history).expect_err("there is no room");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(draft.symlink_metadata().is_err(), "what was written takes no room");
    fill();
    snapshots.save(&history);
    let outcome = || *snapshots.last.lock().expect("nothing panicked");
    assert_eq!(outcome(), Outcome::Failed);
    assert_eq!(loaded(&snapshots, NOW_MS).expect("read").edges.len(), 1);
    snapshots.save(&history);
    assert_eq!(outcome(), Outcome::Whole);
    assert_eq!(loaded(&snapshots, NOW_MS).expect("read").edges.len(), 2);
}

#[test]
fn what_happened_is_kept_too_however_long_ago() {
    let (_folder, snapshots) = folder();
    let history = History::default();
    let happened = |history: &History, text: &str| {
        history.happened(EventKind::WorkloadJoined, Some("web.demo".into()), None, text.into(), NOW_MS);
    };
    happened(&history, "web-1 joined");
    happened(&history, "web-2 joined");
    snapshots.save(&history);
    let history = snapshots.load(NOW_MS + 10 * SPAN_S * 1000);
    happened(&history, "web-3 joined");
    let events = history.read(|state| state.events(10));
    let told: Vec<_> = events.iter().map(|event| (event.id, event.text.as_str())).collect();
    assert_eq!(told, [(3, "web-3 joined"), (2, "web-2 joined"), (1, "web-1 joined")]);
    assert_eq!(events[2].service.as_deref(), Some("web.demo"));
}

#[test]
fn beyond_the_bound_fine_figures_go_first_and_then_what_was_counted_long_ago() {
    let (_folder, mut snapshots) = folder();
    let history = History::default();
    for index in 0..10 {
        let mut series = Series::new(NOW_MS);
        let at = NOW_MS - (index as i64) * 20_000;
        (0..10).for_each(|second| count(&mut series, at - second * 1000, 1000, &delta(5, 5)));
        history.state().edges.insert(edge(index), series);
    }
    let whole = snapshots.write(&history).expect("written");
    assert_eq!(whole.left_out, 0);
    let kept = |snapshots: &Snapshots| -> Vec<(bool, bool)> {
        let state = loaded(snapshots, NOW_MS).expect("read");
        let series = (0..10).map(|index| state.edges.get(&edge(index)));
        let has = |series: Option<&Series>| {
            series.map_or((false, false), |series| (!series.coarse.is_empty(), !series.fine.is_empty()))
        };
        series.map(has).collect()
    };
    let all = kept(&snapshots);
    assert!(all[..6].iter().all(|kept| *kept == (true, true)), "{all:?}");
    for max_bytes in (HEADER + DIGEST..whole.bytes).step_by(whole.bytes / 17) {
        snapshots.max_bytes = max_bytes;
        let written = snapshots.write(&history).expect("written");
        assert!(written.bytes <= max_bytes && written.left_out > 0, "{written:?}");
        let kept = kept(&snapshots);
        assert!(kept.is_sorted_by(|newer, older| newer.0 >= older.0), "{kept:?}");
        assert!(kept.iter().all(|(coarse, _)| *coarse) || kept.iter().all(|(_, fine)| !*fine), "{kept:?}");
    }
}

#[test]
fn a_large_mesh_fits() {
    let (_folder, snapshots) = folder();
    let history = History::default();
    let series = busy(SPAN_S);
    for index in 0..1000 {
        history.state().edges.insert(edge(index), series.clone());
    }
    for index in 0..200 {
        history.state().services.insert(format!("service-{index}.demo"), series.clone());
    }
    let started = Instant::now();
    let written = snapshots.write(&history).expect("written");
    let (write, started) = (started.elapsed(), Instant::now());
    let state = loaded(&snapshots, NOW_MS).expect("read");
    println!("{} bytes, written in {write:?}, read in {:?}", written.bytes, started.elapsed());
    assert_eq!(written.left_out, 0);
    assert_eq!((state.edges.len(), state.services.len()), (1000, 200));
}
