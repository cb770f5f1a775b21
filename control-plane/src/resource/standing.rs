//! How documents stand beside the others: what of them is in force, and what whoever changes something should be warned of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
    time::SystemTime,
};

use super::{
    Document, Documents, Fault, Key, Resource,
    attachments::{self, Attached, Attachments},
    idle::{self, Beside},
    policy::TrafficPolicySpec,
    references, route,
};

/// Whether sidecars can use what documents became. Of our own, so with our name before it.
const USABLE: &str = "pillion.dev/Usable";
/// Whether all that a document says is done, as far as that is not up to other documents.
const EFFECTIVE: &str = "pillion.dev/Effective";

/// What sidecars say that matters to documents, by service (`<name>.<namespace>`).
#[derive(Debug, Clone, Default)]
pub struct FromSidecars {
    /// Whose configuration they refuse now, and why, for people.
    pub refused: BTreeMap<String, String>,
    /// The workloads of it whose own settings say how their health is checked.
    pub own_checks: BTreeMap<String, Vec<String>>,
    /// What others see as the source of requests: services, and workloads that belong to none.
    pub callers: BTreeSet<String>,
    /// Of their certificates: `<namespace>/<service account>`.
    pub accounts: BTreeSet<String>,
}

/// One condition of a status.
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    /// Why it does not hold; or what is to be known although it does.
    pub(super) message: String,
    /// What of that its author can do something about.
    warnings: Vec<Fault>,
}

impl Condition {
    fn good(kind: &'static str, reason: &'static str) -> Self {
        Self { kind, holds: true, reason, message: String::new(), warnings: Vec::new() }
    }

    fn bad(kind: &'static str, reason: &'static str, message: String, warnings: Vec<Fault>) -> Self {
        Self { kind, holds: false, reason, message, warnings }
    }

    /// Whether there is nothing amiss.
    fn of(kind: &'static str, good: &'static str, bad: &'static str, amiss: Vec<Fault>) -> Self {
        if amiss.is_empty() { Self::good(kind, good) } else { Self::bad(kind, bad, told(&amiss), amiss) }
    }
}

/// All documents with what follows from them for each, worked out once for as many as are asked about.
pub(super) struct Standing<'documents> {
    documents: &'documents Documents,
    policies: BTreeMap<Key, references::Policy<'documents>>,
    attachments: Attachments,
    /// Only for warnings, which few ask for.
    beside: OnceLock<Beside<'documents>>,
    sidecars: FromSidecars,
    now: SystemTime,
}

impl<'documents> Standing<'documents> {
    /// Works out what is shared.
    pub(super) fn new(documents: &'documents Documents, sidecars: FromSidecars, now: SystemTime) -> Self {
        Self {
            documents,
            policies: references::policies(documents).0,
            attachments: attachments::attachments(documents),
            beside: OnceLock::new(),
            sidecars,
            now,
        }
    }

    /// A document's conditions, for each of its parents or targets; a service has them for itself.
    pub(super) fn conditions(&self, document: &Document) -> Vec<Vec<Condition>> {
        let missing = references::missing(document, self.documents);
        let below = |prefix: &str| -> Vec<Fault> {
            missing.iter().filter(|fault| fault.field.starts_with(prefix)).cloned().collect()
        };
        let own = document.key();
        match document {
            Document::MeshConfig(_) => Vec::new(),
            Document::Service(_) | Document::ExternalService(_) => vec![vec![self.usable(&own)]],
            Document::HttpRoute(_) | Document::GrpcRoute(_) => {
                let spec = route::of(document).expect("it is a route");
                let parents = spec.parent_refs.iter().flatten().enumerate();
                parents
                    .map(|(index, parent)| {
                        vec![
                            self.attached(&own, index),
                            resolved(below("spec.rules")),
                            self.usable(&attachments::parent(&own, parent)),
                        ]
                    })
                    .collect()
            }
            Document::TrafficPolicy(policy) => {
                let targets = policy.spec.target_refs.iter().enumerate();
                targets
                    .map(|(index, target)| {
                        let field = format!("spec.targetRefs[{index}]");
                        let service = target.key(&own.namespace);
                        let accepted = match below(&format!("{field}.")) {
                            missing if missing.is_empty() => self.holds(&own, policy, &service, field),
                            missing => Condition::of("Accepted", "Accepted", "TargetNotFound", missing),
                        };
                        self.of_policy(
                            policy,
                            &service,
                            accepted,
                            below(&format!("{}.", references::FALLBACK)),
                        )
                    })
                    .collect()
            }
        }
    }

    /// What its author should know of a document.
    fn warnings(&self, document: &Document) -> Vec<Fault> {
        let mut warnings: Vec<Fault> = Vec::new();
        let label = document.key().to_string();
        let conditions = self.conditions(document).into_iter().flatten().flat_map(|it| it.warnings);
        for warning in conditions.chain(self.idle(document)) {
            // What is the same for each of its targets is said once.
            let warning = Fault { document: Some(label.clone()), ..warning };
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        warnings
    }

    /// What of it does nothing although nothing is wrong with it.
    fn idle(&self, document: &Document) -> Vec<Fault> {
        let beside = self.beside.get_or_init(|| Beside::new(self.documents, &self.attachments, self.now));
        let mut idle = beside.of(document, &self.sidecars);
        if let Document::TrafficPolicy(policy) = document {
            let own = document.key();
            for target in &policy.spec.target_refs {
                let service = target.key(&own.namespace);
                if self.policies.get(&service).is_some_and(|holder| *holder.0 == own) {
                    idle.extend(beside.elsewhere(policy, &service, &self.policies));
                }
            }
        }
        idle
    }

    /// A service's configuration is made of all documents that are for it, so each of them says what became of it. Nobody is
    /// warned of it who changes something: it is of what was sent before.
    fn usable(&self, service: &Key) -> Condition {
        match self.sidecars.refused.get(&service.to_wire()) {
            None => Condition::good(USABLE, "NotRefused"),
            Some(why) => Condition::bad(USABLE, "RefusedBySidecars", format!("{service}: {why}"), Vec::new()),
        }
    }

    fn attached(&self, route: &Key, index: usize) -> Condition {
        let field = || format!("spec.parentRefs[{index}]");
        let good = Condition::good("Accepted", "Accepted");
        match self.attachments.get(&(route.clone(), index)) {
            Some(Err(bad)) => {
                let warning = Fault::new(field(), format!("has no effect: {}", bad.message));
                Condition::bad("Accepted", bad.reason, bad.message.clone(), vec![warning])
            }
            Some(Ok(Attached { lost: Some(lost), .. })) => {
                let warnings = vec![Fault::new(field(), lost.as_str())];
                Condition { message: lost.clone(), warnings, ..good }
            }
            _ => good,
        }
    }

    /// Whether it is this policy that a service has.
    fn holds(
        &self,
        own: &Key,
        policy: &Resource<TrafficPolicySpec>,
        service: &Key,
        field: String,
    ) -> Condition {
        match self.policies.get(service) {
            Some(holder) if holder.0 != own => {
                let why = references::goes_before(*holder, policy, service);
                let over = idle::is_over(&holder.1.spec, self.now).unwrap_or_default();
                let warning = Fault::new(field, format!("has no effect on {service}: {why}{over}"));
                Condition::bad("Accepted", "Conflicted", why, vec![warning])
            }
            _ => Condition::good("Accepted", "Accepted"),
        }
    }

    fn of_policy(
        &self,
        policy: &Resource<TrafficPolicySpec>,
        service: &Key,
        accepted: Condition,
        missing: Vec<Fault>,
    ) -> Vec<Condition> {
        let used = accepted.holds;
        let mut conditions = vec![accepted];
        if policy.spec.fallback.as_ref().is_some_and(|fallback| fallback.backend_ref.is_some()) {
            conditions.push(resolved(missing));
        }
        if used {
            conditions.push(self.usable(service));
            if policy.spec.health_check.is_some() {
                conditions.push(self.checked(service));
            }
        }
        conditions
    }

    /// Whether the workloads of a service are checked as its policy says.
    fn checked(&self, service: &Key) -> Condition {
        let own = self.sidecars.own_checks.get(&service.to_wire()).map(Vec::as_slice).unwrap_or_default();
        let overridden = (!own.is_empty()).then(|| {
            let message =
                format!("is not for {}, of {service}: --health of their own goes before it", listed(own));
            Fault::new("spec.healthCheck", message)
        });
        Condition::of(EFFECTIVE, "Effective", "HealthCheckOverridden", overridden.into_iter().collect())
    }
}

/// Whether everything is there that a document sends requests to.
fn resolved(missing: Vec<Fault>) -> Condition {
    Condition::of("ResolvedRefs", "ResolvedRefs", "BackendNotFound", missing)
}

fn told(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Some names, and how many more.
fn listed(names: &[String]) -> String {
    const NAMED: usize = 3;
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// What whoever makes a change should know: all about the documents of it, each with its place in the request, and of others
/// what has come about by the change.
pub fn warnings(
    before: &Documents,
    after: &Documents,
    changed: &[Key],
    sidecars: FromSidecars,
    now: SystemTime,
) -> Vec<Fault> {
    let was = Standing::new(before, sidecars.clone(), now);
    let is = Standing::new(after, sidecars, now);
    let of_the_change = changed.iter().enumerate().filter_map(|(index, key)| Some((index, after.get(key)?)));
    let mut warnings: Vec<Fault> = of_the_change
        .flat_map(|(index, document)| {
            is.warnings(document).into_iter().map(move |it| Fault { index: Some(index), ..it })
        })
        .collect();
    for (key, document) in after.iter().filter(|(key, _)| !changed.contains(key)) {
        let now = is.warnings(document);
        if now.is_empty() {
            continue;
        }
        let known = before.get(key).map(|document| was.warnings(document)).unwrap_or_default();
        warnings.extend(now.into_iter().filter(|warning| !known.contains(warning)));
    }
    warnings
}

#[cfg(test)]
mod tests;
