//! Live requests: which of them a reader asks for, in words that people write, and how much is told of each.
//!
//! The control plane checks a [`Filter`] when it is asked for one, and the sidecar applies it: the same code.

mod words;

use std::fmt;

pub use self::words::{Party, Status};
use crate::{hops::Side, wire};

/// Parts of a filter that may be repeated, at most.
const MAX_ALTERNATIVES: usize = 16;
/// Bytes of a path that are told, and that a filter may compare.
pub const MAX_PATH: usize = 1024;
/// Bytes of a header's value that are told.
pub const MAX_HEADER_VALUE: usize = 256;
/// Headers that are told of one request.
pub const MAX_HEADERS: usize = 16;
/// Bytes of every other word that is told.
pub const MAX_WORD: usize = 256;
/// Requests told each second where nobody says otherwise, and at most.
pub const RATES: (u32, u32) = (100, 1000);

/// Headers that are never told, whoever asks: they carry credentials.
pub const SECRET_HEADERS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// Which requests. Every part that is there must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    direction: Option<Side>,
    methods: Vec<String>,
    path_prefix: String,
    statuses: Vec<Status>,
    from: Option<Party>,
    to: Option<Party>,
    min_duration_us: u64,
    errors: bool,
    called: String,
}

/// One thing that is wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Which part, as [`wire::TapFilter`] names it.
    pub field: &'static str,
    /// What, in words that follow the field.
    pub message: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

/// What a filter looks at of a request that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Which sidecar tells.
    pub side: Side,
    /// The request's.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// How it ended.
    pub ended: Ended,
    /// Who called.
    pub from: Who<'a>,
    /// Who was called, and who served.
    pub to: Who<'a>,
    /// From its head to the last byte of its response.
    pub took_us: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// The response's, also that of a refusal; `None`: there was none.
    pub http: Option<u16>,
    /// Where it was gRPC.
    pub grpc: Option<u8>,
    /// A sidecar refused it.
    pub refused: bool,
    /// Its caller went away.
    pub cancelled: bool,
    /// It counts as failed.
    pub failed: bool,
}

/// One side of a request, by the names that the mesh has for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Who<'a> {
    /// Services, `<name>.<namespace>`: that which is meant, and that which a route has chosen. May be the same, or empty.
    pub services: [&'a str; 2],
    /// The workload; empty where it is not known.
    pub workload: &'a str,
}

/// What a filter looks at of a request that begins.
#[derive(Debug, Clone, Copy)]
pub struct Begun<'a> {
    /// As in [`Facts`].
    pub side: Side,
    /// As in [`Facts`].
    pub method: &'a str,
    /// As in [`Facts`].
    pub path: &'a str,
    /// As in [`Facts`].
    pub from: Who<'a>,
    /// `None`: it is not known yet.
    pub to: Option<Who<'a>>,
}

impl Filter {
    /// Whether a request may be asked for that begins.
    pub fn may_match(&self, begun: &Begun<'_>) -> bool {
        let to = |fits: &dyn Fn(Who<'_>) -> bool| begun.to.is_none_or(fits);
        self.direction.is_none_or(|side| side == begun.side)
            && (self.methods.is_empty() || self.methods.iter().any(|method| method == begun.method))
            && begun.path.starts_with(&self.path_prefix)
            && self.is_about(begun.side, begun.to)
            && self.from.as_ref().is_none_or(|party| party.fits(begun.from))
            && self.to.as_ref().is_none_or(|party| to(&|to| party.fits(to)))
    }

    /// Whether a request is one of those that are looked through, whatever else is asked for. `to`: as of [`Begun`].
    pub fn is_about(&self, side: Side, to: Option<Who<'_>>) -> bool {
        let leads = |to: Who<'_>| to.services.contains(&self.called.as_str());
        self.called.is_empty() || side == Side::Client && to.is_none_or(leads)
    }

    /// Whether one has to hear how a request ends that begins: it may be asked for, or only then is it known whether it is looked
    /// through at all.
    pub fn awaits(&self, begun: &Begun<'_>) -> bool {
        self.may_match(begun) || !self.called.is_empty() && self.is_about(begun.side, begun.to)
    }

    /// Whether a request is asked for that has ended.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        let Facts { side, method, path, from, to, .. } = *facts;
        facts.took_us >= self.min_duration_us
            && (!self.errors || facts.ended.failed || facts.ended.refused)
            && (self.statuses.is_empty() || self.statuses.iter().any(|status| status.fits(facts.ended)))
            && self.may_match(&Begun { side, method, path, from, to: Some(to) })
    }
}

impl TryFrom<&wire::TapFilter> for Filter {
    type Error = Vec<Wrong>;

    fn try_from(filter: &wire::TapFilter) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut say = |field, message| wrong.push(Wrong { field, message });
        let direction = match filter.direction.as_str() {
            "" => None,
            "inbound" => Some(Side::Server),
            "outbound" => Some(Side::Client),
            other => {
                say("direction", format!("must be \"inbound\" or \"outbound\", is {:?}", start(other)));
                None
            }
        };
        for (field, many) in [("method", filter.methods.len()), ("status", filter.statuses.len())] {
            if many > MAX_ALTERNATIVES {
                say(field, format!("must be given at most {MAX_ALTERNATIVES} times, is given {many} times"));
            }
        }
        for method in filter.methods.iter().take(MAX_ALTERNATIVES) {
            let token =
                |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            if !(1..=32).contains(&method.len()) || !method.bytes().all(token) {
                say("method", format!("must be a method such as GET, in upper case, is {:?}", start(method)));
            }
        }
        let path_prefix = filter.path_prefix.clone();
        if path_prefix.len() > MAX_PATH {
            say("path", format!("must have at most {MAX_PATH} bytes, has {}", path_prefix.len()));
        } else if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
            say("path", format!("must begin with /, is {:?}", start(&path_prefix)));
        } else if path_prefix.contains('?') {
            say("path", "must be without a query: queries are not looked at".to_owned());
        }
        let mut statuses = Vec::new();
        for status in filter.statuses.iter().take(MAX_ALTERNATIVES) {
            match status.parse() {
                Ok(status) => statuses.push(status),
                Err(message) => say("status", message),
            }
        }
        let mut party = |field, text: &str| match text {
            "" => None,
            text => text.parse::<Party>().map_err(|message| say(field, message)).ok(),
        };
        let (from, to) = (party("from", &filter.from), party("to", &filter.to));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            direction,
            methods: filter.methods.clone(),
            path_prefix,
            statuses,
            from,
            to,
            min_duration_us: filter.min_duration_us,
            errors: filter.errors,
            called: filter.called.clone(),
        })
    }
}

/// Enough of a text to recognise it in a message.
fn start(text: &str) -> String {
    text.chars().take(80).collect()
}

/// At most `most` bytes of a text, and no half characters.
pub fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    &text[..end]
}

/// Whether a header may be told of at all.
pub fn is_secret(header: &str) -> bool {
    SECRET_HEADERS.iter().any(|secret| header.eq_ignore_ascii_case(secret))
}

#[cfg(test)]
mod tests;
