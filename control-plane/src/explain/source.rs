//! Who calls: the workloads that go by a name, and what their sidecars could not use.

use pillion_api::name::ServiceName;

use super::{Sources, Unexplained, caveats::Client, view::CallerView};
use crate::{
    publish::{Memberships, Publisher},
    registry::Member,
    resource::{Fault, hint},
};

/// The workloads that go by a name, the first being the source of their requests.
pub(super) fn callers(sources: Sources<'_>, from: &str) -> Result<(ServiceName, Vec<Member>), Unexplained> {
    let wrong = |message| Unexplained::Wrong(vec![Fault::new("from", message)]);
    let name: ServiceName = from.parse().map_err(|_| {
        let hint = hint::did_you_mean(from, names(sources));
        wrong(format!(
            "must be <name>.<namespace> of a service or of a workload, such as \"web.demo\", is {from:?}{hint}"
        ))
    })?;
    let memberships = sources.publisher.memberships();
    let goes_by = |member: &Member| {
        let services = memberships.get(member.uid());
        let of_service = services.is_some_and(|services| services.iter().any(|it| **it == *name.as_str()));
        of_service || (member.workload.namespace == name.namespace() && member.name() == name.name())
    };
    let members: Vec<Member> = sources.registry.members().into_iter().filter(goes_by).collect();
    if members.is_empty() {
        let known = sources.publisher.service(name.as_str()).is_some();
        return Err(Unexplained::Absent(if known {
            format!("the service {name} has no workloads, so nobody calls as it")
        } else {
            format!(
                "there is neither a Service nor a workload {} in namespace {}{}",
                name.name(),
                name.namespace(),
                hint::did_you_mean(name.as_str(), names(sources))
            )
        }));
    }
    Ok((name, members))
}

/// Every name that may call or be called.
pub(super) fn names(sources: Sources<'_>) -> impl Iterator<Item = String> {
    let services = sources.publisher.compiled().keys().map(ToString::to_string).collect::<Vec<_>>();
    let name = |member: Member| format!("{}.{}", member.name(), member.workload.namespace);
    services.into_iter().chain(sources.registry.members().into_iter().map(name))
}

/// Who calls, as the callee's sidecar and policies know it.
pub(super) fn client(member: &Member, memberships: &Memberships) -> Client {
    let service = memberships.get(member.uid()).and_then(|services| services.first());
    Client {
        workload: member.name().to_owned(),
        source: match service {
            Some(service) => service.to_string(),
            None => format!("{}.{}", member.name(), member.workload.namespace),
        },
        identity: member.workload.spiffe_id.parse().ok(),
    }
}

pub(super) fn caller(publisher: &Publisher, member: &Member, called: &str, backends: &[&str]) -> CallerView {
    let refused = publisher.refusals.of_sidecar(member.uid());
    let of_these = |name: &str| name == called || backends.contains(&name);
    CallerView {
        uid: member.uid().to_owned(),
        workload: member.name().to_owned(),
        zone: member.workload.hello.zone.clone(),
        connected: member.connected(),
        refused: refused
            .into_iter()
            .filter(|refusal| of_these(&refusal.service))
            .map(|refusal| format!("{}: {}", refusal.service, refusal.reason))
            .collect(),
    }
}
