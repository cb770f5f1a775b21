//! A file that may be renamed while it is written to, as log rotation does: then what follows goes to a new one of the old name.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How often it is looked whether the name still means the same file.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Renewed {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl Renewed {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), file: open(path)?, looked: Instant::now() })
    }

    fn is_current(&self) -> bool {
        let same = |named: std::fs::Metadata, ours: std::fs::Metadata| {
            (named.dev(), named.ino()) == (ours.dev(), ours.ino())
        };
        match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(ours)) => same(named, ours),
            _ => false,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for Renewed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            // Where there can be no new one, the old one is better than none.
            if !self.is_current()
                && let Ok(file) = open(&self.path)
            {
                self.file = file;
            }
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_renamed_is_not_written_to_for_long() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let mut log = Renewed::open(&path).expect("it can be made");
        log.write_all(b"one\n").expect("it is written");
        std::fs::rename(&path, &old).expect("it is there");
        log.write_all(b"two\n").expect("it is written");
        log.looked = log.looked.checked_sub(LOOK).expect("the clock runs since longer");
        log.write_all(b"three\n").expect("it is written");
        let read = |path: &Path| std::fs::read_to_string(path).expect("it is there");
        assert_eq!((read(&old), read(&path)), ("one\ntwo\n".to_owned(), "three\n".to_owned()));
    }
}
