// Events in plain words, newest first.
import type { MeshEvent } from "../api/types";
import type { Health } from "../health";
import { serviceHref } from "../route";
import { HealthShape } from "./icons";
import { Time } from "./parts";

/** What an event means for whoever reads it. An unknown kind is news, neither good nor bad. */
export function toneOf(kind: string): Health {
  if (/opened|refused|unhealthy|expired|failed/.test(kind)) return "failing";
  if (/half-open|left|lost/.test(kind)) return "degraded";
  if (/closed|healthy|joined|renewed/.test(kind)) return "good";
  return "idle";
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
            <a class="about" href={serviceHref(event.service)}>
              {event.service}
            </a>
          )}
          <Time timeMs={event.timeMs} />
        </li>
      ))}
    </ol>
  );
}
