//! One HTTP connection, either side of it: HTTP/1 on httparse, HTTP/2 by h2, told apart only in here.

pub mod body;
pub mod client;
pub mod deadline;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod path;
pub mod refusal;
pub mod replay;
pub mod serve;
pub mod tee;
pub mod through;
pub mod upgrade;

pub use body::Body;

/// Takes the interim responses (1xx) that precede a final one, to hand them on.
///
/// `100 Continue` among them: `Expect: 100-continue` goes on to the application, and only the application knows whether it
/// wants the body (RFC 9110 10.1.1). An early refusal of its own spares the upload.
pub trait InterimSink {
    /// One interim response.
    fn interim(&self, response: ::http::Response<()>);
}

/// For requests whose interim responses nobody waits for.
#[derive(Debug, Clone, Copy)]
pub struct NoInterim;

impl InterimSink for NoInterim {
    fn interim(&self, _: ::http::Response<()>) {}
}

/// Which of the two HTTP versions a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0 and HTTP/1.1 (RFC 9112).
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113).
    Http2,
}
