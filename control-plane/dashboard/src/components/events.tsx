// Events in plain words, newest first.
import type { MeshEvent } from "../api/types";
import type { Health } from "../health";
import { serviceHref, workloadHref } from "../route";
import { HealthShape } from "./icons";
import { Time } from "./parts";

const TONES: Record<string, Health> = {
  "breaker-opened": "failing",
  "breaker-half-opened": "degraded",
  "breaker-closed": "good",
  "workload-joined": "good",
  "workload-left": "degraded",
  "workload-healthy": "good",
  "workload-unhealthy": "failing",
  "certificate-renewed": "good",
  "configuration-refused": "failing",
};

/** What an event means for whoever reads it. Any other kind is news, neither good nor bad. */
export function toneOf(kind: string): Health {
  return TONES[kind] ?? "idle";
}

export function EventList({ events }: { events: readonly MeshEvent[] }) {
  return (
    <ol class="events">
      {events.map((event) => (
        <li key={event.id} data-kind={event.kind}>
          <HealthShape health={toneOf(event.kind)} />
          <span class="kind">{event.kind.replaceAll("-", " ")}</span>
          <span class="text">{event.text}</span>
          {event.service && (
            <a class="about" href={event.workload ? workloadHref(event.workload, event.service) : serviceHref(event.service)}>
              {event.service}
            </a>
          )}
          <Time timeMs={event.timeMs} />
        </li>
      ))}
    </ol>
  );
}
