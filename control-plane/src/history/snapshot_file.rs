//! The file that the history outlives a restart in: written whole or not at all, of bounded size, and never a reason not to start.
//!
//! It is of this control plane only: another one, over the same store, has figures of the sidecars that report to it.

use std::{
    cmp::Reverse,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::digest;
use prost::Message as _;
use tracing::{info, warn};

use super::{
    History, State,
    snapshot::{Key, Part, Record},
};

/// Beside the store.
const FILE_NAME: &str = "history";
/// What comes before everything else.
const MAGIC: &[u8; 8] = b"pillhist";
/// Of what follows. A file of another one is not read.
const VERSION: u32 = 1;
/// Of a SHA-256, the file's last bytes: a digest of all before.
const DIGEST: usize = 32;
const HEADER: usize = MAGIC.len() + size_of::<u32>();
/// A file is never larger. 200 services with 1,000 edges, all busy for half an hour, need three quarters of it.
const MAX_BYTES: usize = 64 << 20;

/// Writes and reads the file.
pub struct Snapshots {
    path: PathBuf,
    max_bytes: usize,
    /// Held while writing, so that two do not write the same draft.
    last: Mutex<Outcome>,
}

/// How it went the last time: operators are told when that changes, not every minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Whole,
    LeftOut,
    Failed,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    bytes: usize,
    /// Records that there was no room for.
    left_out: usize,
}

impl Snapshots {
    /// In the data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE_NAME), max_bytes: MAX_BYTES, last: Mutex::new(Outcome::Whole) }
    }

    /// What was kept and is not too old. Empty, with a warning, if the file cannot be used. Blocks.
    pub fn load(&self, now_ms: i64) -> History {
        let file = self.path.display();
        match self.read(now_ms) {
            Ok(None) => History::default(),
            Ok(Some(state)) => {
                info!(services = state.services.len(), edges = state.edges.len(), %file, "figures read");
                History { state: Mutex::new(state) }
            }
            Err(error) => {
                warn!(%error, %file, "the figures of before cannot be used; starting without them");
                History::default()
            }
        }
    }

    /// Writes what is kept now. Reports wait for one series at a time at most. Blocks.
    pub fn save(&self, history: &History) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.write(history);
        let file = self.path.display();
        let outcome = match &written {
            Ok(Written { left_out: 0, .. }) => Outcome::Whole,
            Ok(_) => Outcome::LeftOut,
            Err(_) => Outcome::Failed,
        };
        if *last == outcome {
            return;
        }
        *last = outcome;
        match written {
            Ok(Written { bytes, left_out: 0 }) => info!(bytes, %file, "figures are written whole again"),
            Ok(Written { bytes, left_out }) => {
                warn!(bytes, left_out, %file, "not all figures fit; those least recently counted are not written");
            }
            Err(error) => warn!(%error, %file, "figures are not written; a restart would lose them"),
        }
    }

    fn write(&self, history: &History) -> io::Result<Written> {
        let draft = self.path.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let mut out = Out::new(file);
        out.put(MAGIC)?;
        out.put(&VERSION.to_le_bytes())?;
        let left_out = self.write_records(history, &mut out)?;
        let bytes = out.finish()?;
        fs::rename(&draft, &self.path)?;
        Ok(Written { bytes, left_out })
    }

    /// The thirty minutes of all come before the last two of any, each in the order of [`keys`]: what is beyond the bound is left
    /// out from the first record on that has no room.
    fn write_records(&self, history: &History, out: &mut Out) -> io::Result<usize> {
        let keys = history.read(keys);
        let mut left_out = 0;
        let mut record = Vec::new();
        for part in [Part::Coarse, Part::Fine] {
            for key in &keys {
                // One that is forgotten by now is left out.
                let found = history.read(|state| Record::of(key, key.find(state)?, part));
                let Some(found) = found else { continue };
                record.clear();
                found.encode_length_delimited(&mut record).expect("a vector grows as needed");
                if left_out > 0 || out.bytes + record.len() + DIGEST > self.max_bytes {
                    left_out += 1;
                    continue;
                }
                out.put(&record)?;
            }
        }
        Ok(left_out)
    }

    /// `None`: there is no file.
    fn read(&self, now_ms: i64) -> io::Result<Option<State>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.take(self.max_bytes as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > self.max_bytes {
            return Err(damaged("is larger than any that was written"));
        }
        parse(&bytes, now_ms).map(Some)
    }
}

/// What was counted most recently first; of the same ten seconds, services before edges before policies before instances.
fn keys(state: &State) -> Vec<Key> {
    let services = state.services.iter().map(|(name, series)| (Key::Service(name.clone()), series));
    let edges = state.edges.iter().map(|(key, series)| (Key::Edge(key.clone()), series));
    let policies = state.policies.iter().map(|(name, series)| (Key::Policies(name.clone()), series));
    let instances = state.instances.iter().map(|(uid, series)| (Key::Instance(uid.clone()), series));
    let all = services.chain(edges).chain(policies).chain(instances);
    let mut all: Vec<(Key, i64)> = all.map(|(key, series)| (key, series.last_s())).collect();
    all.sort_by_key(|(_, last)| Reverse(*last));
    all.into_iter().map(|(key, _)| key).collect()
}

fn parse(bytes: &[u8], now_ms: i64) -> io::Result<State> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("does not begin as such a file"))?;
    let (version, _) = rest.split_first_chunk().ok_or_else(|| damaged("ends too early"))?;
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(damaged(&format!("has version {version}; this release reads {VERSION}")));
    }
    let (all, told) = bytes.split_last_chunk::<DIGEST>().ok_or_else(|| damaged("ends too early"))?;
    if digest::digest(&digest::SHA256, all).as_ref() != told {
        return Err(damaged("is not as it was written"));
    }
    let mut records = all.get(HEADER..).ok_or_else(|| damaged("ends too early"))?;
    let mut state = State::default();
    while !records.is_empty() {
        let record = Record::decode_length_delimited(&mut records).map_err(io::Error::other)?;
        record.restore(&mut state, now_ms);
    }
    Ok(state)
}

fn damaged(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the file {how}"))
}

/// A file in the making, with its digest so far.
struct Out {
    file: BufWriter<File>,
    digest: digest::Context,
    bytes: usize,
}

impl Out {
    fn new(file: File) -> Self {
        let file = BufWriter::with_capacity(256 << 10, file);
        Self { file, digest: digest::Context::new(&digest::SHA256), bytes: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len();
        self.file.write_all(bytes)
    }

    /// On disk, before it takes its name.
    fn finish(mut self) -> io::Result<usize> {
        self.file.write_all(self.digest.finish().as_ref())?;
        self.file.into_inner()?.sync_all()?;
        Ok(self.bytes + DIGEST)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use pillion_api::{
        latency,
        wire::{EdgeDelta, SegmentDelta},
    };
    use proptest::prelude::*;

    use super::{
        super::{Action, Counts, EdgeKey, SPAN_S, Series, Spent},
        *,
    };

    const NOW_MS: i64 = 1_000_000_000_000;

    /// A busy second: requests of several durations, retries, refusals and a split.
    fn delta(requests: u64, spread: u32) -> EdgeDelta {
        let buckets: Vec<u32> = (0..spread).map(|index| latency::index(10_000) as u32 + index).collect();
        let segment = |segment| SegmentDelta {
            segment,
            sum_us: requests * 1000,
            buckets: buckets.clone(),
            counts: vec![requests; buckets.len()],
        };
        EdgeDelta {
            requests,
            failures: requests / 7,
            mtls: true,
            retries: requests / 3,
            refusals: [("no-endpoints".to_owned(), requests)].into(),
            refusals_by_callee: [("rate-limited".to_owned(), 1)].into(),
            latency_counts: vec![requests; buckets.len()],
            split_requests: requests,
            segments: (0..5).map(segment).collect(),
            latency_buckets: buckets,
            ..EdgeDelta::default()
        }
    }

    fn count(series: &mut Series, at_ms: i64, interval_ms: u32, delta: &EdgeDelta) {
        let mut counts = Counts::of(delta);
        counts.actions.count(Action::Shed, "low", delta.requests);
        series.add(at_ms, interval_ms, &counts);
        series.add_hops(at_ms, &Spent::of(delta).unwrap_or_default());
    }

    fn edge(index: usize) -> EdgeKey {
        EdgeKey { from: format!("from-{index}.demo"), to: "to.demo".into(), backend: "v1.demo".into() }
    }

    /// As many seconds as given, up to now.
    fn busy(seconds: i64) -> Series {
        let mut series = Series::new(NOW_MS - seconds * 1000);
        let delta = delta(20, 6);
        (0..=seconds).rev().for_each(|ago| count(&mut series, NOW_MS - ago * 1000, 1000, &delta));
        series
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
    fn every_action_is_found_by_its_number() {
        for (index, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, index);
        }
        // The last one: whoever adds another puts it behind, and here.
        assert_eq!(Action::ALL.last(), Some(&Action::Shed));
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
        later[8] = 2;
        assert_eq!(error(&later).as_deref(), Some("the file has version 2; this release reads 1"));
        assert!(error(b"").is_some());
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        assert!(snapshots.load(NOW_MS).read(|state| state.edges.is_empty()));
        snapshots.save(&history);
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
            assert!(
                kept.iter().all(|(coarse, _)| *coarse) || kept.iter().all(|(_, fine)| !*fine),
                "{kept:?}"
            );
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
}
