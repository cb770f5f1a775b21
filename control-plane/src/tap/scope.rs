//! Whose sidecars tell of live requests. Pure.

use std::{fmt, str::FromStr};

use pillion_api::tap::Party;

/// What somebody looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// Every workload.
    Mesh,
    /// A service's workloads, one workload, or a namespace's.
    Of(Party),
}

impl FromStr for Resource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "mesh" {
            return Ok(Self::Mesh);
        }
        text.parse()
            .map(Self::Of)
            .map_err(|wrong: String| wrong.replacen(" or ns/NAME", ", ns/NAME or mesh", 1))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => formatter.write_str("mesh"),
            Self::Of(party) => write!(formatter, "{party}"),
        }
    }
}

/// Whose sidecars tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// What is looked at.
    pub resource: Resource,
    /// Of a service: the sidecars of those who call it, instead of its own workloads'.
    pub callers: bool,
    /// The only namespace whose sidecars may be asked. `None`: any.
    pub namespace: Option<String>,
}

/// One sidecar, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Of its identity.
    pub namespace: &'a str,
    /// What people call its workload.
    pub workload: &'a str,
}

impl Scope {
    /// What to say where there is no such sidecar.
    pub fn nobody(&self) -> String {
        match (&self.resource, self.called()) {
            (_, Some(service)) => format!("no sidecar calls {service} at this moment"),
            (Resource::Mesh, None) => "no workload is registered".to_owned(),
            (Resource::Of(Party::Namespace(name)), None) => {
                format!("no workload is registered in namespace {name}")
            }
            (Resource::Of(Party::Workload(name)), None) => format!("there is no workload {name} any more"),
            (Resource::Of(Party::Service(name)), None) => format!("no workload belongs to {}", name.as_str()),
        }
    }

    /// The service whose callers tell.
    pub fn called(&self) -> Option<&str> {
        match &self.resource {
            Resource::Of(Party::Service(name)) if self.callers => Some(name.as_str()),
            _ => None,
        }
    }

    /// Whether a sidecar is to tell. `serves`: whether its workload belongs to a service; `follows`: whether it has asked for one
    /// in order to call it.
    pub fn concerns(
        &self,
        about: About<'_>,
        serves: impl FnOnce(&str) -> bool,
        follows: impl FnOnce(&str) -> bool,
    ) -> bool {
        self.namespace.as_deref().is_none_or(|only| only == about.namespace)
            && match (&self.resource, self.called()) {
                (_, Some(service)) => follows(service),
                (Resource::Mesh, None) => true,
                (Resource::Of(Party::Namespace(name)), None) => name == about.namespace,
                (Resource::Of(Party::Workload(name)), None) => name == about.workload,
                (Resource::Of(Party::Service(name)), None) => serves(name.as_str()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(resource: &str, callers: bool, namespace: Option<&str>) -> Scope {
        let resource = resource.parse().expect("a resource");
        Scope { resource, callers, namespace: namespace.map(str::to_owned) }
    }

    #[test]
    fn only_sidecars_that_are_meant_tell() {
        let about = About { namespace: "demo", workload: "payments-3" };
        let table = [
            ("mesh", false, None, true),
            ("mesh", false, Some("demo"), true),
            ("mesh", false, Some("shop"), false),
            ("ns/demo", false, None, true),
            ("ns/shop", false, None, false),
            ("svc/payments.demo", false, None, true),
            ("payments-v1.demo", false, None, true),
            ("svc/web.demo", false, None, false),
            ("workload/payments-3", false, None, true),
            ("workload/payments-3", false, Some("shop"), false),
            ("workload/payments-1", false, None, false),
            // It follows what it calls, and what it calls is none of its own.
            ("svc/bank.demo", true, None, true),
            ("svc/bank.demo", true, Some("shop"), false),
            ("svc/payments.demo", true, None, false),
        ];
        for (resource, callers, namespace, expected) in table {
            let concerns = scope(resource, callers, namespace).concerns(
                about,
                |service| ["payments.demo", "payments-v1.demo"].contains(&service),
                |service| service == "bank.demo",
            );
            assert_eq!(concerns, expected, "{resource} {callers} {namespace:?}");
        }
    }

    #[test]
    fn what_is_no_resource_is_told_what_one_is() {
        let wrong = "deploy/web".parse::<Resource>().expect_err("there are none here");
        assert_eq!(wrong, "must be svc/NAME.NAMESPACE, workload/NAME, ns/NAME or mesh, is \"deploy/web\"");
    }
}
