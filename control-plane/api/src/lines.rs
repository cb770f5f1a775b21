//! Lines that nobody waits for: a thread of its own writes them. A full disk queue or a reader that has stopped reading must
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
/// Lines that are written at once, where so many wait.
const TOGETHER: usize = 64;
/// Bytes that a buffer keeps, when it was larger for once.
const KEPT: usize = 64 * 1024;
/// At the end, what waits may take so long.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Between attempts to write to what takes nothing at the moment and does not let its writer wait: standard output is so once
/// somebody who shares it has made it so.
const AGAIN: Duration = Duration::from_millis(10);
/// Of the thread, bytes: it only formats and writes.
const STACK: usize = 128 * 1024;

/// Takes what is to become lines, and never waits. Clones share one thread.
#[derive(Debug)]
pub struct Queue<T>(SyncSender<Option<T>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// How items become lines.
pub trait Format<T>: Send + 'static {
    /// Adds an item's line, with its end.
    fn line(&mut self, item: T, text: &mut Vec<u8>);

    /// Hears how many items' lines were written, and how many could not be.
    fn written(&mut self, lines: u64, lost: u64) {
        let _ = (lines, lost);
    }

    /// Adds what else there is to say after that.
    fn after(&mut self, text: &mut Vec<u8>) {
        let _ = text;
    }

    /// Hears that this was written.
    fn said(&mut self) {}
}

/// Writes texts of whole lines, whole where that is possible.
struct Pen<W> {
    to: W,
    /// Whether a line was begun that could not be ended.
    within: bool,
}

impl<W: Write> Pen<W> {
    /// Nothing yet, or what ends the line before.
    fn begin(&self, text: &mut Vec<u8>) {
        text.clear();
        if self.within {
            text.push(b'\n');
        }
    }

    /// Gives how many bytes were written; fewer where it has failed.
    #[expect(
        clippy::disallowed_methods,
        reason = "the thread is its own, and a writer does not say when it takes more"
    )]
    fn write(&mut self, text: &[u8]) -> usize {
        let mut written = 0;
        while written < text.len() {
            match self.to.write(&text[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    // As with a writer that is made to wait: what comes meanwhile is bounded by the queue.
                    io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
                    _ => break,
                },
            }
        }
        if let Some(last) = text[..written].last() {
            self.within = *last != b'\n';
        }
        written
    }
}

/// Held until the end: what waits is still written when it is dropped, for a moment at most.
#[derive(Debug)]
pub struct Ending<T: Send + 'static> {
    queue: Option<Queue<T>>,
    over: Receiver<()>,
}

impl<T: Send + 'static> Queue<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn to(
        thread: &str,
        writer: impl Write + Send + 'static,
        mut format: impl Format<T>,
    ) -> io::Result<(Self, Ending<T>)> {
        let (queue, waiting) = mpsc::sync_channel::<Option<T>>(WAITING);
        let (done, over) = mpsc::channel();
        thread::Builder::new().name(thread.into()).stack_size(STACK).spawn(move || {
            let mut pen = Pen { to: writer, within: false };
            let (mut text, mut ends, mut over) = (Vec::new(), Vec::with_capacity(TOGETHER), false);
            // Ends with the last sender, or with the word for the end.
            while !over && let Ok(Some(first)) = waiting.recv() {
                pen.begin(&mut text);
                let mut line = |item, text: &mut Vec<u8>| {
                    format.line(item, text);
                    ends.push(text.len());
                };
                line(first, &mut text);
                for next in waiting.try_iter().take(TOGETHER - 1) {
                    match next {
                        Some(next) => line(next, &mut text),
                        None => over = true,
                    }
                }
                let written = pen.write(&text);
                let whole = ends.partition_point(|end| *end <= written);
                format.written(whole as u64, (ends.len() - whole) as u64);
                ends.clear();

                pen.begin(&mut text);
                let nothing = text.len();
                format.after(&mut text);
                if text.len() > nothing && pen.write(&text) == text.len() {
                    format.said();
                }
                text.shrink_to(KEPT);
            }
            let _ = pen.to.flush();
            drop(done);
        })?;
        let queue = Self(queue);
        Ok((queue.clone(), Ending { queue: Some(queue), over }))
    }

    /// Whether there was room for it. There is none where the thread has ended, either.
    pub fn offer(&self, item: T) -> bool {
        self.0.try_send(Some(item)).is_ok()
    }
}

impl<T: Send + 'static> Drop for Ending<T> {
    fn drop(&mut self) {
        // Others keep their clones, so that the end has to be said. On a thread, as there may be no place for it for ever.
        let Some(Queue(queue)) = self.queue.take() else { return };
        if let Err(TrySendError::Full(end)) = queue.try_send(None) {
            thread::spawn(move || queue.send(end));
        }
        let over = self.over.recv_timeout(LAST_LINES);
        debug_assert!(matches!(over, Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)));
    }
}

/// Takes whole lines of a log, one a write. Clones share one thread.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: Queue<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

/// Lines as they come, and word of those that were left out.
struct AsTheyCome<F> {
    told: F,
    lost: Arc<AtomicU64>,
    /// Of which word is being given.
    telling: u64,
}

impl<F: Fn(u64) -> String + Send + 'static> Format<Vec<u8>> for AsTheyCome<F> {
    fn line(&mut self, line: Vec<u8>, text: &mut Vec<u8>) {
        text.extend_from_slice(&line);
    }

    fn written(&mut self, _: u64, lost: u64) {
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }

    fn after(&mut self, text: &mut Vec<u8>) {
        self.telling = self.lost.load(Ordering::Relaxed);
        if self.telling > 0 {
            text.extend_from_slice((self.told)(self.telling).as_bytes());
        }
    }

    fn said(&mut self) {
        self.lost.fetch_sub(self.telling, Ordering::Relaxed);
    }
}

impl Lines {
    /// Starts the thread. `told`: the line that says how many were left out.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn to(
        writer: impl Write + Send + 'static,
        told: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<(Self, Ending<Vec<u8>>)> {
        let lost = Arc::new(AtomicU64::new(0));
        let format = AsTheyCome { told, lost: Arc::clone(&lost), telling: 0 };
        let (queue, ending) = Queue::to("log", writer, format)?;
        Ok((Self { queue, lost }, ending))
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.queue.offer(line.to_vec()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        assert!(lost >= 100 - TOGETHER, "no more are in the writer's hands: {lost}");
        assert_eq!(written + lost, WAITING + 100);
    }

    /// Takes a few bytes at a time, and in between says what it is told to.
    struct Faulty(Page, std::vec::IntoIter<Option<io::ErrorKind>>);

    impl Write for Faulty {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.1.next() {
                Some(Some(fault)) => Err(fault.into()),
                Some(None) => self.0.write(&bytes[..bytes.len().min(3)]),
                None => self.0.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of some lines, one after another, and the number that were left out at last.
    fn with_faults(faults: Vec<Option<io::ErrorKind>>, lines: &[&str]) -> (String, u64) {
        let page = Page::default();
        let mut pen = Pen { to: Faulty(page.clone(), faults.into_iter()), within: false };
        let (mut text, mut lost) = (Vec::new(), 0);
        for line in lines {
            pen.begin(&mut text);
            text.extend_from_slice(line.as_bytes());
            lost += u64::from(pen.write(&text) < text.len());
        }
        (page.text(), lost)
    }

    #[test]
    fn what_takes_nothing_for_the_moment_gets_the_rest_later() {
        use io::ErrorKind::{Interrupted, WouldBlock};
        let faults =
            vec![Some(WouldBlock), None, Some(WouldBlock), Some(Interrupted), None, Some(WouldBlock)];
        assert_eq!(with_faults(faults, &["first\n", "second\n"]), ("first\nsecond\n".into(), 0));
    }

    #[test]
    fn a_line_that_was_torn_spoils_no_other() {
        let full = Some(io::ErrorKind::StorageFull);
        let (text, lost) = with_faults(vec![None, full, full], &["first\n", "second\n", "third\n"]);
        assert_eq!((text.as_str(), lost), ("fir\nthird\n", 2));
    }

    #[test]
    fn what_could_not_be_written_is_told_as_soon_as_that_can_be_written() {
        let full = Some(io::ErrorKind::StorageFull);
        let page = Page::default();
        let (mut lines, ending) =
            Lines::to(Faulty(page.clone(), vec![full, full].into_iter()), told).expect("a thread");
        lines.write_all(b"first\n").expect("it never fails");
        while lines.lost.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        lines.write_all(b"second\n").expect("it never fails");
        drop(ending);
        assert_eq!(page.text(), "second\nlost 1\n");
    }
}
