//! What both forms of a line are made of. Whatever a caller has sent, it stays within its field: everything but printable
//! ASCII is escaped, so that nobody can end a line, begin another, or tell a terminal what to do.

use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use http::Version;
use pillion_api::model;

use crate::telemetry::{edge::Outcome, exchange::Exchange};

/// Within double quotes, as JSON has it.
pub(super) fn escaped(text: &str, out: &mut Vec<u8>) {
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend([b'\\', character as u8]),
            ' '..='~' => out.push(character as u8),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

pub(super) fn quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escaped(text, out);
    out.push(b'"');
}

/// RFC 3339, UTC, to the millisecond.
pub(super) fn time(at: SystemTime, out: &mut Vec<u8>) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days of the proleptic Gregorian calendar, in years that begin with March: their leap day is the last one.
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year_of_era, month + 3),
        _ => (era * 400 + year_of_era + 1, month - 9),
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millisecond = since.subsec_millis();
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z");
}

/// Microseconds as milliseconds.
pub(super) fn milliseconds(us: u64, out: &mut Vec<u8>) {
    let _ = write!(out, "{}.{:03}", us / 1000, us % 1000);
}

pub(super) fn protocol(exchange: &Exchange) -> &'static str {
    match exchange.version {
        None => "TCP",
        Some(Version::HTTP_10) => "HTTP/1.0",
        Some(Version::HTTP_2) => "HTTP/2",
        Some(_) => "HTTP/1.1",
    }
}

pub(super) fn path<'a>(exchange: &'a Exchange, log: &model::AccessLog) -> &'a str {
    match exchange.path.split_once('?') {
        Some((path, _)) if !log.query => path,
        _ => &exchange.path,
    }
}

/// How it ended, in one word.
pub(super) fn outcome(exchange: &Exchange) -> &'static str {
    match exchange.outcome {
        Some(Outcome::Status(_) | Outcome::Grpc(_)) => "completed",
        Some(Outcome::Refused(_)) => "refused",
        Some(Outcome::Cancelled) => "cancelled",
        None if exchange.detail.is_empty() => "closed",
        None => "broken",
    }
}

pub(super) fn reason(exchange: &Exchange) -> Option<&'static str> {
    match exchange.outcome {
        Some(Outcome::Refused(reason)) => Some(reason.as_str()),
        _ => None,
    }
}

/// Of gRPC's requests.
pub(super) fn grpc_status(exchange: &Exchange) -> Option<u8> {
    match exchange.outcome? {
        Outcome::Grpc(code) => Some(code),
        Outcome::Refused(reason) if exchange.grpc => Some(reason.grpc() as u8),
        _ => None,
    }
}

/// What one try came to.
pub(super) fn tried(ended: Option<Option<Outcome>>, out: &mut Vec<u8>) {
    let _ = match ended {
        None | Some(Some(Outcome::Cancelled)) => write!(out, "cancelled"),
        Some(None) => write!(out, "connected"),
        Some(Some(Outcome::Status(status))) => write!(out, "{}", status.as_u16()),
        Some(Some(Outcome::Grpc(code))) => write!(out, "grpc-{code}"),
        Some(Some(Outcome::Refused(reason))) => write!(out, "{}", reason.as_str()),
    };
}
