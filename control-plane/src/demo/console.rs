//! What the demo says on standard output.

use std::io::Write;
use std::time::Instant;

/// Writes for people. A closed pipe is nobody listening, not a reason to stop.
#[derive(Clone, Copy)]
pub struct Console {
    started: Instant,
}

impl Console {
    /// Its clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// One line, or several.
    pub fn say(&self, text: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// Something that happened, with the time since the start.
    pub fn event(&self, text: &str) {
        self.say(&format!("{:6.1} s  {text}", self.started.elapsed().as_secs_f32()));
    }

    /// Says what is being done, does it, and says how it went.
    pub async fn step<T, E>(&self, what: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let mut out = std::io::stdout();
        let _ = write!(out.lock(), "{what} … ");
        let _ = out.flush();
        let result = Box::pin(work).await;
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        self.say(&format!("{outcome} ({:.1} s)", begun.elapsed().as_secs_f32()));
        result
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}
