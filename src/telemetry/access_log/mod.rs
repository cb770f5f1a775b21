//! Access logs: a line for each request and each connection that has ended, or for a share of them. Whoever serves only hands
//! them to a thread of the log's own, which formats and writes; what that cannot keep up with is left out, and counted.

mod file;
mod json;
mod text;
mod words;

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    path::Path,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderName, HeaderValue};
use pillion_api::{
    lines::{Ending, Format, Queue},
    model::{self, LineFormat},
};
use tokio::time::Instant;

use self::file::Renewed;
use super::{
    exchange::{Exchange, LONGEST},
    listeners::Wanted,
    names::Metric,
    prometheus::Registry,
};

/// What a sidecar's own settings say of its access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// There is none.
    Off,
    /// There is one, which looks like this.
    On(LineFormat),
}

impl FromStr for Choice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Off, Self::On(LineFormat::Json), Self::On(LineFormat::Text)]
            .into_iter()
            .find(|choice| choice.as_str() == text)
            .ok_or("is none of off, json and text")
    }
}

impl Choice {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On(LineFormat::Json) => "json",
            Self::On(LineFormat::Text) => "text",
        }
    }

    /// What is in force, where the mesh says `told`.
    pub fn in_force(
        choice: Option<Self>,
        told: Option<&Arc<model::AccessLog>>,
    ) -> Option<Arc<model::AccessLog>> {
        match choice {
            None => told.cloned(),
            Some(Self::Off) => None,
            Some(Self::On(format)) => {
                let told = told.map(|told| model::AccessLog::clone(told)).unwrap_or_default();
                Some(Arc::new(model::AccessLog { format, ..told }))
            }
        }
    }
}

/// What is to become a line, and how.
type Line = (Box<Exchange>, Arc<model::AccessLog>);

/// Where lines go, of all workers.
#[derive(Debug)]
pub struct Sink {
    state: Mutex<State>,
    counts: Arc<Counts>,
    /// Where they go, for people.
    name: String,
}

/// Lines by what has become of them, since they were shown last.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
}

/// The thread is there once there is anything to write.
enum State {
    Unused(Box<dyn Write + Send>),
    Started {
        queue: Queue<Line>,
        /// When it is dropped, what waits is still written.
        _ending: Ending<Line>,
    },
    /// It could not be started, or is over.
    Over,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unused(_) => "Unused",
            Self::Started { .. } => "Started",
            Self::Over => "Over",
        })
    }
}

/// Formats lines on the log's thread, and counts them there.
#[derive(Default)]
struct Formatter(Arc<Counts>);

impl Format<Line> for Formatter {
    fn line(&mut self, (exchange, log): Line, text: &mut Vec<u8>) {
        match log.format {
            LineFormat::Json => json::line(&exchange, &log, text),
            LineFormat::Text => text::line(&exchange, &log, text),
        }
    }

    fn written(&mut self, lines: u64, lost: u64) {
        self.0.written.fetch_add(lines, Ordering::Relaxed);
        self.0.dropped.fetch_add(lost, Ordering::Relaxed);
    }
}

impl Sink {
    /// To a file, at its end; else to standard output.
    ///
    /// # Errors
    /// When that cannot be opened.
    pub fn new(file: Option<&Path>) -> io::Result<Self> {
        let to: Box<dyn Write + Send> = match file {
            Some(path) => Box::new(Renewed::open(path)?),
            // Its own descriptor: nobody else who writes there is held up with it.
            None => Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        };
        let state = Mutex::new(State::Unused(to));
        let name = file.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        Ok(Self { state, counts: Arc::default(), name })
    }

    fn queue(&self) -> Option<Queue<Line>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Unused(_) = *state
            && let State::Unused(to) = std::mem::replace(&mut *state, State::Over)
        {
            match Queue::to("access-log", to, Formatter(self.counts.clone())) {
                Ok((queue, ending)) => *state = State::Started { queue, _ending: ending },
                Err(error) => tracing::error!(%error, "there is no thread for the access log"),
            }
        }
        match &*state {
            State::Started { queue, .. } => Some(queue.clone()),
            State::Unused(_) | State::Over => None,
        }
    }

    /// Shows how many lines there were. To be called about once a second.
    pub fn show(&self, registry: &Registry) {
        let [written, dropped] =
            [&self.counts.written, &self.counts.dropped].map(|count| count.swap(0, Ordering::Relaxed));
        for (result, count) in [("written", written), ("dropped", dropped)] {
            if count > 0 {
                registry.counter(Metric::AccessLogLines, &[result]).increment(count);
            }
        }
        registry.losses.lines_lost(&self.name, dropped, Instant::now());
    }

    /// Nothing more will come. What waits is still written, for a moment at most.
    pub fn end(&self) {
        let state =
            std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Over);
        drop(state);
    }
}

/// One worker's hold on the log: which requests it wants, and where they go.
#[derive(Debug, Clone)]
pub struct AccessLog {
    log: Arc<model::AccessLog>,
    queue: Option<Queue<Line>>,
    sink: Arc<Sink>,
}

impl AccessLog {
    /// Has the thread started, if that is not done yet.
    pub fn new(log: Arc<model::AccessLog>, sink: Arc<Sink>) -> Self {
        Self { log, queue: sink.queue(), sink }
    }

    /// What it wants of a request or connection that begins. `chance` is below [`model::Percent::OF`]. One number for both: who
    /// wants 1 % of the good ones and 10 % of the others has the same 1 % in both.
    pub(super) fn wants(&self, chance: u32) -> Wanted {
        wants(&self.log, chance)
    }

    /// Whether one that has ended is to be written.
    pub(super) fn takes(exchange: &Exchange) -> bool {
        let needed = if exchange.is_error() { Wanted::LOG_ERROR } else { Wanted::LOG_SUCCESS };
        exchange.wanted.has(needed)
    }

    pub(super) fn headers(&self) -> &[HeaderName] {
        &self.log.headers
    }

    /// Never waits.
    pub(super) fn write(&self, mut exchange: Box<Exchange>) {
        let fields = exchange.headers.iter_mut().map(|(_, value)| value);
        for value in fields.chain(&mut exchange.told) {
            // A copy: it is a part of the buffer that the whole head was read into.
            let bytes = value.as_bytes();
            *value = HeaderValue::from_bytes(&bytes[..bytes.len().min(LONGEST)])
                .unwrap_or(HeaderValue::from_static(""));
        }
        let taken = self.queue.as_ref().is_some_and(|queue| queue.offer((exchange, self.log.clone())));
        if !taken {
            self.sink.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn wants(log: &model::AccessLog, chance: u32) -> Wanted {
    let wanted = |is: bool, what: Wanted| if is { what } else { Wanted::default() };
    wanted(log.errors.takes(chance), Wanted::LOG_ERROR)
        | wanted(log.successes.takes(chance), Wanted::LOG_SUCCESS)
}

#[cfg(test)]
mod tests;
