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
use tracing::{info, warn};

use super::{
    History, State, packed,
    snapshot::{self, Key, Part},
};

/// Beside the store.
const FILE_NAME: &str = "history";
/// What comes before everything else.
const MAGIC: &[u8; 8] = b"pillhist";
/// Of what follows. A file of another one is not read: whoever goes to another release, or back, loses what was shown of the last half hour.
const VERSION: u32 = 3;
/// Of a SHA-256, the file's last bytes: a digest of all before.
const DIGEST: usize = 32;
const HEADER: usize = MAGIC.len() + size_of::<u32>();
/// A file is never larger. 200 services with 1,000 edges, all busy and refused now and then for half an hour, need
/// 25 MB.
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
    /// Blocks that there was no room for.
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
                let (services, edges, events) = (state.services.len(), state.edges.len(), state.events.len());
                info!(services, edges, events, %file, "figures read");
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

    /// Beside the last one, which holds until this one is on disk.
    fn write(&self, history: &History) -> io::Result<Written> {
        let draft = self.path.with_extension("new");
        let written = self.write_draft(history, &draft);
        let renamed = written.and_then(|written| fs::rename(&draft, &self.path).map(|()| written));
        match (&renamed, self.path.parent()) {
            (Ok(_), Some(folder)) => File::open(folder)?.sync_all()?,
            // Where the disk is full it would keep others from writing.
            (Err(_), _) => _ = fs::remove_file(&draft),
            (Ok(_), None) => {}
        }
        renamed
    }

    fn write_draft(&self, history: &History, draft: &Path) -> io::Result<Written> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
        let mut out = Out::new(file);
        out.put(MAGIC)?;
        out.put(&VERSION.to_le_bytes())?;
        let left_out = self.write_blocks(history, &mut out)?;
        Ok(Written { bytes: out.finish()?, left_out })
    }

    /// Events come first; then the thirty minutes of all before the last two of any, each in the order of [`keys`]: what is beyond the bound
    /// is left out from the first block on that has no room.
    fn write_blocks(&self, history: &History, out: &mut Out) -> io::Result<usize> {
        let (mut block, mut length) = (Vec::new(), Vec::new());
        let mut left_out = 0;
        let mut put = |block: &mut Vec<u8>| -> io::Result<()> {
            if block.is_empty() {
                return Ok(());
            }
            length.clear();
            packed::put(&mut length, block.len() as u64);
            if left_out > 0 || out.bytes + length.len() + block.len() + DIGEST > self.max_bytes {
                left_out += 1;
            } else {
                out.put(&length)?;
                out.put(block)?;
            }
            block.clear();
            Ok(())
        };
        history.read(|state| snapshot::write_events(state, &mut block));
        put(&mut block)?;
        let keys = history.read(keys);
        for part in [Part::Coarse, Part::Fine] {
            for key in &keys {
                history.read(|state| {
                    // One that is forgotten by now is left out.
                    key.find(state).inspect(|series| snapshot::write_series(key, series, part, &mut block));
                });
                put(&mut block)?;
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
    let mut rest = all.get(HEADER..).ok_or_else(|| damaged("ends too early"))?;
    let mut state = State::default();
    while !rest.is_empty() {
        packed::take_bytes(&mut rest)
            .and_then(|block| snapshot::restore(block, &mut state, now_ms))
            .ok_or_else(|| damaged("has what this release does not know"))?;
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
mod tests;
