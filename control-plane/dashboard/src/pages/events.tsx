// Everything that happened, as far back as the page and the control plane remember.
import { useState } from "preact/hooks";
import { EventList } from "../components/events";
import { Empty } from "../components/parts";
import { count } from "../format";
import { useLive } from "../state/store";

const GROUPS = [
  { id: "all", label: "All", pattern: /./ },
  { id: "breakers", label: "Breakers", pattern: /^breaker/ },
  { id: "workloads", label: "Workloads", pattern: /^workload/ },
  { id: "certificates", label: "Certificates", pattern: /^certificate/ },
  { id: "configuration", label: "Configuration", pattern: /^(configuration|document)/ },
] as const;

export function EventsPage() {
  const { events, mesh } = useLive();
  const [chosen, setChosen] = useState<(typeof GROUPS)[number]>(GROUPS[0]);
  if (mesh === null) return <p class="waiting">Waiting for the control plane…</p>;
  const shown = events.filter((event) => chosen.pattern.test(event.kind));
  return (
    <>
      <div class="page-head">
        <h1>Events</h1>
        <div class="switch" role="group" aria-label="Kind of event">
          {GROUPS.map((group) => (
            <button key={group.id} type="button" aria-pressed={group === chosen} onClick={() => setChosen(group)}>
              {group.label}
            </button>
          ))}
        </div>
      </div>
      <p class="quiet" aria-live="polite" role="status">
        {count(shown.length, "event")}
        {shown[0] ? `. Latest: ${shown[0].text}` : ""}
      </p>
      {shown.length > 0 ? (
        <EventList events={shown} />
      ) : (
        <Empty title={events.length === 0 ? "Nothing happened yet" : "No events of this kind"}>
          <p>
            Breakers that open and close, workloads that join and leave, renewed certificates and applied documents are listed
            here. <code>pillion demo</code> makes some of each.
          </p>
        </Empty>
      )}
    </>
  );
}
