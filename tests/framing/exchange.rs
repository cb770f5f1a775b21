//! One case: sent, and judged by what the sender was told and what has reached the other end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{
    Due,
    proxies::Proxy,
    requests, responses, streams,
    upstream::{Arrived, contains, replaced},
};
use crate::support::http2::{self, Field, frame};

const HOST: &str = "app.demo.mesh";

/// Nothing is heard for so long from whoever waits for more. Only a peer's turn may take it: pillion must not wait.
const WAITS: Duration = Duration::from_secs(3);

/// What became of a case.
#[derive(Debug)]
pub(super) struct Finding {
    /// As it stands in the table.
    pub(super) cell: String,
    outcome: Option<Due>,
    /// What it is told from.
    evidence: String,
}

impl Finding {
    /// What is wrong with it, if it is not what was due.
    pub(super) fn fault(&self, name: &str, due: Due) -> Option<String> {
        let right = match (due, self.outcome) {
            // Noticed even before its head had gone.
            (Due::CutOff, Some(Due::Refused)) => true,
            (due, outcome) => outcome == Some(due),
        };
        (!right).then(|| format!("{name}: {due:?} was due, not {}: {}", self.cell, self.evidence))
    }
}

/// What the sender was told.
struct Said {
    answer: Vec<u8>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
    /// Not at all.
    Open,
}

/// Sends these bytes, and reads until the end, or until `enough` has come.
async fn talk(proxy: &Proxy, bytes: &[u8], enough: impl Fn(&[u8]) -> bool) -> Said {
    let (mut read, mut write) = tokio::io::split(proxy.connect().await);
    let mut answer = Vec::new();
    let reading = async {
        loop {
            if enough(&answer) {
                break End::Open;
            }
            match timeout(WAITS, read.read_buf(&mut answer)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) => break End::Closed,
                Ok(Err(_)) => break End::Reset,
                Err(_) => break End::Open,
            }
        }
    };
    // Whoever refuses need not read to the end.
    let (end, _) = tokio::join!(reading, write.write_all(bytes));
    Said { answer, end }
}

/// The final answers' status codes, in their order.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let codes = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    codes.filter(|code: &u16| *code >= 200).collect()
}

fn evidence(said: &Said, arrived: &[Arrived]) -> String {
    let mut text = format!("said {:?}, then {:?}", String::from_utf8_lossy(&said.answer), said.end);
    for Arrived { bytes, whole } in arrived {
        let how = if *whole { "whole" } else { "in part" };
        text += &format!("; arrived {how}: {:?}", String::from_utf8_lossy(bytes));
    }
    text
}

/// An HTTP/1 request, and another one after it that must not be heard of unless the first one is taken.
pub(super) async fn request(proxy: &Proxy, index: usize, case: requests::Case) -> Finding {
    let (path, next) = (format!("/c{index}-"), format!("/s{index}-"));
    let mut bytes = case.bytes(&path, HOST);
    bytes.extend(format!("GET {next} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").bytes());
    let said = talk(proxy, &bytes, |_| false).await;
    let (arrived, followed) = (proxy.kept.with(&path), !proxy.kept.with(&next).is_empty());
    let status = statuses(&said.answer);
    let whole = arrived.iter().filter(|arrived| arrived.whole).count();
    let refused = said.end != End::Open && status.len() <= 1 && status.iter().all(|code| *code >= 400);
    let outcome = match whole {
        0 if refused && !followed && arrived.is_empty() => Some(Due::Refused),
        0 if refused && !followed && !status.is_empty() => Some(Due::CutOff),
        1 if status.first() == Some(&200) => Some(Due::Taken),
        _ => None,
    };
    let cell = match (status.first(), said.end) {
        (Some(200), _) if whole > 0 => passed_on(&arrived, case.mark),
        (Some(code), _) if whole > 0 => format!("{}, answered {code}", passed_on(&arrived, case.mark)),
        (Some(code), _) => format!("refused {code}"),
        (None, _) if whole > 0 => format!("{}, unanswered", passed_on(&arrived, case.mark)),
        (None, End::Open) => "waits for more".into(),
        (None, _) => "connection closed".into(),
    };
    Finding { cell, outcome, evidence: evidence(&said, &arrived) }
}

fn passed_on(arrived: &[Arrived], mark: &[u8]) -> String {
    let as_it_was = arrived.iter().any(|arrived| contains(&arrived.bytes, mark));
    if as_it_was { "forwarded".into() } else { "forwarded, normalised".into() }
}

/// A response, and that to a further request, which must be its own.
pub(super) async fn response(proxy: &Proxy, index: usize, case: responses::Case) -> Finding {
    let method = case.method;
    let bytes = format!(
        "{method} /r{index} HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET /n{index} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    );
    let said = talk(proxy, bytes.as_bytes(), |_| false).await;
    let status = statuses(&said.answer);
    let poisoned = contains(&said.answer, b"POISON");
    let next = contains(&said.answer, format!("next-{index}-").as_bytes());
    let marked = contains(&said.answer, case.mark);
    let ended = !next && status.len() <= 1 && said.end != End::Open;
    let outcome = match status.first() {
        Some(502) if !poisoned && next => Some(Due::Refused),
        // With a reset, which may overtake all of it: a clean end would be a body's, for those who wait for one.
        None | Some(200) if !poisoned && ended && said.end == End::Reset => Some(Due::CutOff),
        Some(200..=399) if !poisoned && next => Some(Due::Taken),
        _ => None,
    };
    let cell = match status.first() {
        // How much of it has gone when the rest turns out to be none is a matter of microseconds.
        Some(500..) if case.due == Due::CutOff => "cut off".into(),
        None | Some(200) if case.due == Due::CutOff && ended => "cut off".into(),
        None if said.end == End::Open => "waits for more".into(),
        None => "connection closed".into(),
        Some(code @ 500..) => format!("refused {code}"),
        Some(_) if ended => "connection closed amid it".into(),
        Some(_) if poisoned => "forwarded, with what it hides".into(),
        Some(_) if marked => "forwarded".into(),
        Some(_) => "forwarded, normalised".into(),
    };
    Finding { cell, outcome, evidence: evidence(&said, &[]) }
}

/// How an HTTP/2 stream was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    /// `None`: with one that is not in the static table.
    Status(Option<u16>),
    StreamReset,
    ConnectionEnded,
}

/// An HTTP/2 request, frame by frame.
pub(super) async fn stream(proxy: &Proxy, index: usize, case: streams::Case) -> Finding {
    let path = format!("/h{index}-");
    let last = case.data.is_empty();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    let fields = [case.pseudo.unwrap_or(streams::USUAL), case.fields].concat();
    bytes.extend(frame(1, 4 | u8::from(last), 1, &block(&fields, &path)));
    if !last {
        bytes.extend(frame(0, u8::from(case.trailers.is_empty()), 1, case.data));
        if !case.trailers.is_empty() {
            bytes.extend(frame(1, 5, 1, &block(case.trailers, &path)));
        }
    }
    let said = talk(proxy, &bytes, |answer| answered(answer).is_some()).await;
    let answered = answered(&said.answer).or((said.end != End::Open).then_some(Answered::ConnectionEnded));
    let arrived = proxy.kept.with(&path);
    let whole = arrived.iter().filter(|arrived| arrived.whole).count();
    let outcome = match (answered, whole) {
        (Some(Answered::Status(Some(200))), 1) => Some(Due::Taken),
        (Some(Answered::Status(Some(200))) | None, _) => None,
        (_, 0) if arrived.is_empty() => Some(Due::Refused),
        (_, 0) => Some(Due::CutOff),
        _ => None,
    };
    let cell = match answered {
        Some(Answered::Status(Some(200))) if whole > 0 => passed_on(&arrived, case.mark),
        Some(Answered::Status(Some(code))) => format!("refused {code}"),
        Some(Answered::Status(None)) => "refused".into(),
        Some(Answered::StreamReset) => "stream reset".into(),
        Some(Answered::ConnectionEnded) => "connection closed".into(),
        None => "waits for more".into(),
    };
    Finding { cell, outcome, evidence: format!("{answered:?}; {}", evidence(&said, &arrived)) }
}

/// Fields for this case's path.
fn block(fields: &[Field<'_>], path: &str) -> Vec<u8> {
    let written = |value| replaced(&replaced(value, b"/CASE", path.as_bytes()), b"HOST", HOST.as_bytes());
    fields.iter().flat_map(|(name, value)| http2::block(&[(name, &written(value))])).collect()
}

/// What the frames say of stream 1, or of all of them.
fn answered(mut bytes: &[u8]) -> Option<Answered> {
    // The static table's (RFC 7541 A).
    const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    while let [high, middle, low, kind, _, _, _, _, stream, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let payload = rest.get(..length)?;
        match (kind, stream) {
            (1, 1) => {
                // After what else may be first: a change of the dynamic table's size.
                let first = payload.iter().skip_while(|byte| **byte & 0xe0 == 0x20).copied().next()?;
                let status =
                    first.checked_sub(0x88).and_then(|index| STATUSES.get(usize::from(index)).copied());
                return Some(Answered::Status(status));
            }
            (3, 1) => return Some(Answered::StreamReset),
            (7, _) => return Some(Answered::ConnectionEnded),
            _ => {}
        }
        bytes = &rest[length..];
    }
    None
}
