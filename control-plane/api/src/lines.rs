//! Log lines that nobody waits for: a thread of its own writes them. A full disk queue or a reader that has stopped reading must
//! not hold up who serves; what it cannot keep up with is left out, and told of.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

/// Lines that wait to be written, at most.
const WAITING: usize = 1024;
/// At the end, what waits may take so long.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Of the thread, bytes: it only writes.
const STACK: usize = 64 * 1024;

/// Takes whole lines, one a write, and never waits. Clones share one thread.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

/// Held until the end: what waits is still written when it is dropped, for a moment at most.
#[derive(Debug)]
pub struct Ending {
    queue: Option<Lines>,
    over: Receiver<()>,
}

impl Lines {
    /// Starts the thread. `told`: the line that says how many were left out.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn to(
        mut writer: impl Write + Send + 'static,
        told: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<(Self, Ending)> {
        let (queue, waiting) = mpsc::sync_channel::<Vec<u8>>(WAITING);
        let (ends, over) = mpsc::channel();
        let lost = Arc::new(AtomicU64::new(0));
        let uncounted = Arc::clone(&lost);
        thread::Builder::new().name("log".into()).stack_size(STACK).spawn(move || {
            // Ends with the last sender, or with the word for the end. Who could be told that it cannot be written?
            while let Some(line) = waiting.recv().ok().filter(|line| !line.is_empty()) {
                let _ = writer.write_all(&line);
                match uncounted.swap(0, Ordering::Relaxed) {
                    0 => {}
                    lost => drop(writer.write_all(told(lost).as_bytes())),
                }
            }
            let _ = writer.flush();
            drop(ends);
        })?;
        let lines = Self { queue, lost };
        Ok((lines.clone(), Ending { queue: Some(lines), over }))
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !line.is_empty()
            && let Err(TrySendError::Full(_)) = self.queue.try_send(line.to_vec())
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Others keep their clones, so that the end has to be said: by an empty line. On a thread, as there may be no place for
        // it for ever.
        let Some(Lines { queue, .. }) = self.queue.take() else { return };
        if let Err(TrySendError::Full(end)) = queue.try_send(Vec::new()) {
            thread::spawn(move || queue.send(end));
        }
        let over = self.over.recv_timeout(LAST_LINES);
        debug_assert!(matches!(over, Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Keeps what is written; waits while somebody else holds it.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("text")
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told(lost: u64) -> String {
        format!("lost {lost}\n")
    }

    #[test]
    fn all_of_it_is_written_in_order_by_the_end() {
        let page = Page::default();
        let (mut lines, ending) = Lines::to(page.clone(), told).expect("a thread");
        let expected: String = (0..WAITING).map(|line| format!("{line}\n")).collect();
        for line in expected.split_inclusive('\n') {
            lines.write_all(line.as_bytes()).expect("it never fails");
        }
        drop(ending);
        assert_eq!(page.text(), expected);
        lines.write_all(b"after the end\n").expect("it never fails");
        assert_eq!(page.text(), expected);
    }

    #[test]
    fn nobody_waits_for_one_who_does_not_write_and_what_is_left_out_is_told() {
        let page = Page::default();
        let (mut lines, ending) = Lines::to(page.clone(), told).expect("a thread");
        {
            let _stuck = page.0.lock().expect("nobody panicked");
            for _ in 0..WAITING + 100 {
                lines.write_all(b"line\n").expect("it never fails");
            }
        }
        // Its place may still be taken.
        drop(ending);
        let text = page.text();
        let written = text.matches("line\n").count();
        let lost: usize =
            text.lines().filter_map(|line| line.strip_prefix("lost ")?.parse::<usize>().ok()).sum();
        assert!(lost >= 99, "at most one is in the writer's hands: {lost}");
        assert_eq!(written + lost, WAITING + 100);
    }
}
