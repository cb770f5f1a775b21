//! The words of a filter: statuses and parties, as people write them.

use std::{fmt, str::FromStr};

use super::{Ended, Who, start};
use crate::name::{ServiceName, is_label};

/// How a request ended, as a filter asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `5xx`: of this class.
    Class(u8),
    /// `503`.
    Http(u16),
    /// `grpc-14`.
    Grpc(u8),
    /// `refused`: by a sidecar.
    Refused,
    /// `cancelled`: by the caller.
    Cancelled,
}

impl Status {
    pub(super) fn fits(self, ended: Ended) -> bool {
        match self {
            Self::Class(class) => ended.http.is_some_and(|status| status / 100 == u16::from(class)),
            Self::Http(status) => ended.http == Some(status),
            Self::Grpc(code) => ended.grpc == Some(code),
            Self::Refused => ended.refused,
            Self::Cancelled => ended.cancelled,
        }
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let is = start(text);
            format!(
                "must be such as \"5xx\", \"503\", \"grpc-14\" (0 to 16), \"refused\" or \"cancelled\", is {is:?}"
            )
        };
        match text {
            "refused" => return Ok(Self::Refused),
            "cancelled" => return Ok(Self::Cancelled),
            _ => {}
        }
        if let Some(code) = text.strip_prefix("grpc-") {
            return code.parse().ok().filter(|code| *code <= 16).map(Self::Grpc).ok_or_else(wrong);
        }
        if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            let class = class.parse().ok().filter(|class| (1..=5).contains(class));
            return class.map(Self::Class).ok_or_else(wrong);
        }
        text.parse().ok().filter(|status| (100..=599).contains(status)).map(Self::Http).ok_or_else(wrong)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(formatter, "{class}xx"),
            Self::Http(status) => write!(formatter, "{status}"),
            Self::Grpc(code) => write!(formatter, "grpc-{code}"),
            Self::Refused => formatter.write_str("refused"),
            Self::Cancelled => formatter.write_str("cancelled"),
        }
    }
}

/// Who calls or is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// `web.demo` or `svc/web.demo`.
    Service(ServiceName),
    /// `workload/web-1`.
    Workload(String),
    /// `ns/demo`.
    Namespace(String),
}

impl Party {
    pub(super) fn fits(&self, who: Who<'_>) -> bool {
        match self {
            Self::Service(name) => who.services.contains(&name.as_str()),
            Self::Workload(name) => who.workload == name,
            Self::Namespace(namespace) => {
                let is_of = |service: &&str| service.rsplit_once('.').is_some_and(|(_, of)| of == namespace);
                who.services.iter().any(is_of)
            }
        }
    }
}

impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let is = start(text);
            format!("must be svc/NAME.NAMESPACE, workload/NAME or ns/NAME, is {is:?}")
        };
        match text.split_once('/') {
            None => text.parse().map(Self::Service).map_err(|_| wrong()),
            Some(("svc" | "service" | "services", name)) => {
                name.parse().map(Self::Service).map_err(|_| wrong())
            }
            Some(("workload" | "workloads", name)) if is_label(name) => Ok(Self::Workload(name.to_owned())),
            Some(("ns" | "namespace" | "namespaces", name)) if is_label(name) => {
                Ok(Self::Namespace(name.to_owned()))
            }
            Some(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(formatter, "svc/{}", name.as_str()),
            Self::Workload(name) => write!(formatter, "workload/{name}"),
            Self::Namespace(name) => write!(formatter, "ns/{name}"),
        }
    }
}
