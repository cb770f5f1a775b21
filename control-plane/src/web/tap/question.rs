//! What somebody wants to watch, read from a query: every fault at once.

use std::time::Duration;

use pillion_api::{
    tap::{Filter, Party, RATES},
    wire::TapFilter,
};
use utoipa::IntoParams;

use crate::{
    resource::{Fault, duration},
    tap::{Resource, Scope},
};

/// Which live requests. Parts of different names must all fit; of those that may be repeated, any.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(in crate::web) struct TapParams {
    /// Whose sidecars tell: `svc/NAME.NAMESPACE`, `workload/NAME`, `ns/NAME`, or `mesh`
    resource: String,
    /// Of a service: `workloads` (default), its own sidecars; or `callers`, those of whoever calls it, who see the network's share
    /// and what their own sidecars refuse
    seen_by: Option<String>,
    /// `inbound` or `outbound`; absent: both
    direction: Option<String>,
    /// Such as GET; may be repeated
    method: Vec<String>,
    /// What the path, without its query, begins with
    path: Option<String>,
    /// Such as `5xx`, `503`, `grpc-14`, `refused`, `cancelled`; may be repeated
    status: Vec<String>,
    /// Who calls: `svc/NAME.NAMESPACE`, `workload/NAME` or `ns/NAME`
    from: Option<String>,
    /// Who is called, or serves, in the same words
    to: Option<String>,
    /// As long, or longer, such as `250ms`
    min_duration: Option<String>,
    /// Only what failed or was refused
    errors: Option<bool>,
    /// Requests told each second, 1 to 1000. Default: 100
    max_rate: Option<u32>,
}

/// A question that makes sense.
#[derive(Debug)]
pub(super) struct Question {
    /// Whose sidecars tell, before it is known what a token allows.
    pub(super) scope: Scope,
    pub(super) filter: TapFilter,
    pub(super) max_per_second: u32,
}

impl TapParams {
    /// What each name of a query says; the second of what may be there once is a fault.
    pub(super) fn read(pairs: Vec<(String, String)>) -> Result<Question, Vec<Fault>> {
        let (mut params, mut faults) = (Self::default(), Vec::new());
        let mut resource = None;
        let mut seen = Vec::new();
        for (name, value) in pairs {
            match name.as_str() {
                "method" => {
                    params.method.push(value);
                    continue;
                }
                "status" => {
                    params.status.push(value);
                    continue;
                }
                _ if seen.contains(&name) => {
                    faults.push(Fault::new(name, "must be given once"));
                    continue;
                }
                "resource" => resource = Some(value),
                "seenBy" => params.seen_by = Some(value),
                "direction" => params.direction = Some(value),
                "path" => params.path = Some(value),
                "from" => params.from = Some(value),
                "to" => params.to = Some(value),
                "minDuration" => params.min_duration = Some(value),
                "errors" => match value.parse() {
                    Ok(errors) => params.errors = Some(errors),
                    Err(_) => {
                        faults.push(Fault::new("errors", format!("must be true or false, is {value:?}")))
                    }
                },
                "maxRate" => match value.parse::<u32>().ok().filter(|rate| (1..=RATES.1).contains(rate)) {
                    Some(rate) => params.max_rate = Some(rate),
                    None => {
                        let most = RATES.1;
                        faults.push(Fault::new("maxRate", format!("must be from 1 to {most}, is {value:?}")));
                    }
                },
                _ => faults.push(Fault::new(&*name, "is not a known parameter")),
            }
            seen.push(name);
        }
        match resource {
            Some(resource) => params.resource = resource,
            None => faults.push(Fault::new("resource", "is required")),
        }
        params.check(faults)
    }

    fn check(self, mut faults: Vec<Fault>) -> Result<Question, Vec<Fault>> {
        let mut say = |field: &str, message: String| faults.push(Fault::new(field, message));
        let resource = match self.resource.as_str() {
            // It was said already.
            "" => None,
            text => text.parse::<Resource>().map_err(|message| say("resource", message)).ok(),
        };
        let callers = match self.seen_by.as_deref() {
            None | Some("workloads") => false,
            Some("callers") => {
                let is_service = matches!(resource, None | Some(Resource::Of(Party::Service(_))));
                if !is_service {
                    say("seenBy", "can be callers for a service only".to_owned());
                }
                if self.direction.as_deref() == Some("inbound") {
                    say("direction", "must be outbound, or absent, where callers tell".to_owned());
                }
                true
            }
            Some(other) => {
                say("seenBy", format!("must be \"workloads\" or \"callers\", is {other:?}"));
                false
            }
        };
        let min_duration = match self.min_duration.as_deref().map(duration::parse) {
            None => Duration::ZERO,
            Some(Ok(duration)) => duration,
            Some(Err(message)) => {
                say("minDuration", message);
                Duration::ZERO
            }
        };
        let scope = resource.map(|resource| Scope { resource, callers, namespace: None });
        let filter = TapFilter {
            direction: self.direction.unwrap_or_default(),
            methods: self.method,
            path_prefix: self.path.unwrap_or_default(),
            statuses: self.status,
            from: self.from.unwrap_or_default(),
            to: self.to.unwrap_or_default(),
            min_duration_us: u64::try_from(min_duration.as_micros()).unwrap_or(u64::MAX),
            errors: self.errors.unwrap_or_default(),
            called: scope.as_ref().and_then(Scope::called).unwrap_or_default().to_owned(),
        };
        // By the code of the sidecars, which get nothing that they would not take.
        if let Err(wrong) = Filter::try_from(&filter) {
            faults.extend(wrong.into_iter().map(|wrong| Fault::new(wrong.field, wrong.message)));
        }
        match scope {
            Some(scope) if faults.is_empty() => {
                Ok(Question { scope, filter, max_per_second: self.max_rate.unwrap_or(RATES.0) })
            }
            _ => Err(faults),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<Question, Vec<String>> {
        let pairs = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TapParams::read(pairs).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_question_is_read() {
        let question = read(&[
            ("resource", "svc/payments.demo"),
            ("seenBy", "callers"),
            ("method", "GET"),
            ("method", "POST"),
            ("path", "/pay"),
            ("status", "5xx"),
            ("minDuration", "250ms"),
            ("errors", "true"),
        ]);
        let question = question.expect("a good question");
        assert_eq!(question.max_per_second, 100);
        let expected = TapFilter {
            methods: vec!["GET".into(), "POST".into()],
            path_prefix: "/pay".into(),
            statuses: vec!["5xx".into()],
            min_duration_us: 250_000,
            errors: true,
            called: "payments.demo".into(),
            ..TapFilter::default()
        };
        assert_eq!(question.filter, expected);
        assert_eq!(read(&[("resource", "mesh"), ("maxRate", "7")]).expect("as good").max_per_second, 7);
    }

    #[test]
    fn every_fault_is_named() {
        let faults = read(&[
            ("resource", "deploy/web"),
            ("seenBy", "nobody"),
            ("path", "pay"),
            ("path", "/pay"),
            ("status", "9xx"),
            ("minDuration", "soon"),
            ("errors", "yes"),
            ("maxRate", "0"),
            ("colour", "red"),
        ]);
        let fields: Vec<String> = faults
            .expect_err("nothing is right")
            .iter()
            .map(|fault| fault.split(':').next().unwrap_or_default().to_owned())
            .collect();
        let expected =
            ["path", "errors", "maxRate", "colour", "resource", "seenBy", "minDuration", "path", "status"];
        assert_eq!(fields, expected);
        assert_eq!(read(&[]).expect_err("of what?"), ["resource: is required"]);
        let callers = read(&[("resource", "ns/demo"), ("seenBy", "callers"), ("direction", "inbound")]);
        assert_eq!(
            callers.expect_err("whose?"),
            [
                "seenBy: can be callers for a service only",
                "direction: must be outbound, or absent, where callers tell"
            ]
        );
    }
}
