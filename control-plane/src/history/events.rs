//! What happened lately, in plain words: a bounded list.

use std::collections::VecDeque;

use serde::Serialize;
use utoipa::ToSchema;

use super::packed;

/// How many events are kept.
pub const KEPT: usize = 500;

/// What kind of thing happened. What is new comes last: the file on disk has their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A sidecar leaves an endpoint alone, if not too many are left alone.
    BreakerOpened,
    /// A sidecar tries an endpoint again.
    BreakerHalfOpened,
    /// A sidecar trusts an endpoint again.
    BreakerClosed,
    /// A workload registered.
    WorkloadJoined,
    /// A workload said goodbye, or its lease ended.
    WorkloadLeft,
    /// An application became ready.
    WorkloadHealthy,
    /// An application is not ready.
    WorkloadUnhealthy,
    /// A workload has a new certificate.
    CertificateRenewed,
    /// A sidecar could not use what it was sent.
    ConfigurationRefused,
    /// Callers of a service are made to see a fault.
    FaultInjected,
    /// They are not any more.
    FaultOver,
    /// Somebody applied a document.
    DocumentApplied,
    /// Somebody deleted a document.
    DocumentDeleted,
}

impl EventKind {
    /// Every one, by its number.
    const ALL: [Self; 13] = [
        Self::BreakerOpened,
        Self::BreakerHalfOpened,
        Self::BreakerClosed,
        Self::WorkloadJoined,
        Self::WorkloadLeft,
        Self::WorkloadHealthy,
        Self::WorkloadUnhealthy,
        Self::CertificateRenewed,
        Self::ConfigurationRefused,
        Self::FaultInjected,
        Self::FaultOver,
        Self::DocumentApplied,
        Self::DocumentDeleted,
    ];
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Growing by one.
    pub id: u64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What kind of thing.
    pub kind: EventKind,
    /// The service concerned, `<name>.<namespace>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The workload concerned, as people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// For people.
    pub text: String,
}

/// The newest [`KEPT`] events.
#[derive(Debug, Default)]
pub(super) struct Events {
    last_id: u64,
    kept: VecDeque<Event>,
}

impl Events {
    pub(super) fn add(&mut self, mut event: Event) {
        self.last_id += 1;
        event.id = self.last_id;
        self.keep(event);
    }

    fn keep(&mut self, event: Event) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The newest first.
    pub(super) fn latest(&self, count: usize) -> Vec<Event> {
        self.kept.iter().rev().take(count).cloned().collect()
    }

    /// Writes all, the oldest first.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        packed::put(to, self.kept.len() as u64);
        for event in &self.kept {
            packed::put(to, event.id);
            packed::put(to, event.time_ms.unsigned_abs());
            packed::put(to, event.kind as u64);
            for name in [&event.service, &event.workload] {
                packed::put_bytes(to, name.as_deref().unwrap_or_default().as_bytes());
            }
            packed::put_bytes(to, event.text.as_bytes());
        }
    }

    /// What was written before a restart; numbers go on from there.
    pub(super) fn read(from: &mut &[u8]) -> Option<Self> {
        let mut events = Self::default();
        for _ in 0..packed::take(from)? {
            events.last_id = packed::take(from)?;
            let event = Event {
                id: events.last_id,
                time_ms: i64::try_from(packed::take(from)?).ok()?,
                kind: *EventKind::ALL.get(usize::try_from(packed::take(from)?).ok()?)?,
                service: take_name(from)?,
                workload: take_name(from)?,
                text: packed::take_text(from)?.to_owned(),
            };
            events.keep(event);
        }
        Some(events)
    }
}

fn take_name(from: &mut &[u8]) -> Option<Option<String>> {
    let name = packed::take_text(from)?;
    Some((!name.is_empty()).then(|| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_with_more_the_newest_are_kept() {
        let event = |id| Event {
            id,
            time_ms: 0,
            kind: EventKind::ALL[0],
            service: None,
            workload: None,
            text: String::new(),
        };
        let more = Events { last_id: KEPT as u64 + 5, kept: (1..=KEPT as u64 + 5).map(event).collect() };
        let mut file = Vec::new();
        more.write(&mut file);
        let mut events = Events::read(&mut &file[..]).expect("it was written");
        events.add(event(0));
        assert_eq!((events.len(), events.latest(1)[0].id), (KEPT, KEPT as u64 + 6));
    }

    #[test]
    fn every_kind_is_found_by_its_number() {
        for (index, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
        // The last one: whoever adds another puts it behind, and here.
        assert_eq!(EventKind::ALL.last(), Some(&EventKind::DocumentDeleted));
    }

    #[test]
    fn events_come_back_as_they_were_and_numbers_go_on() {
        let mut events = Events::default();
        for kind in EventKind::ALL {
            let service = (kind as usize).is_multiple_of(2).then(|| "payments.demo".to_owned());
            events.add(Event {
                id: 0,
                time_ms: 1_000_000,
                kind,
                service,
                workload: None,
                text: format!("{kind:?}"),
            });
        }
        let mut written = Vec::new();
        events.write(&mut written);
        let mut read = Events::read(&mut &written[..]).expect("as written");
        assert_eq!(read.latest(usize::MAX), events.latest(usize::MAX));
        let event = events.latest(1).remove(0);
        read.add(event);
        assert_eq!(read.latest(1)[0].id, 14);
        for end in 0..written.len() {
            assert!(Events::read(&mut &written[..end]).is_none(), "cut at {end}");
        }
    }
}
