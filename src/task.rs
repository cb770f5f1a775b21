//! Starting a task of a thread's own.

use std::pin::Pin;

use tokio::task::JoinHandle;

/// Runs this on the present thread, beside what it does.
///
/// Boxed, so that all are of one type: the runtime's part of a task is some 3 KB of program for each type that there is, and
/// a future is moved about before it has its place. What starts for each request is better off with a type of its own.
pub fn start(work: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    let work: Pin<Box<dyn Future<Output = ()>>> = Box::pin(work);
    tokio::task::spawn_local(work)
}
