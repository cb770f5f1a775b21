// What the policies of a service are set to and what they did, side by side: a card for each.
import type { Activity, Policy } from "../api/types";
import { type PolicyFigures, policyFigures } from "../activity";
import { span } from "../format";
import { HealthShape } from "./icons";

export function ActivityCards({ policy, activity }: { policy: Policy | null; activity: Activity }) {
  return (
    <ul class="activity" aria-label={`What policies did in the last ${span(activity.seconds * 1000)}`}>
      {policyFigures(policy, activity).map((entry) => (
        <Card key={entry.id} entry={entry} />
      ))}
    </ul>
  );
}

function Card({ entry }: { entry: PolicyFigures }) {
  return (
    <li data-policy={entry.id}>
      <h3>{entry.title}</h3>
      <p class="note">{entry.setting}</p>
      <dl class="counts">
        {entry.figures.map((figure) => (
          <div key={figure.label} class={figure.bad ? "degraded" : figure.zero ? "zero" : ""}>
            <dt>{figure.label}</dt>
            <dd>
              {figure.bad && <HealthShape health="degraded" />}
              {figure.count}
            </dd>
          </div>
        ))}
      </dl>
      {entry.rows.length > 0 && (
        <ul class="by note">
          {entry.rows.map((row) => (
            <li key={`${row.name} ${row.text}`}>
              <span>{row.name}</span> <span class={row.bad ? "bad" : ""}>{row.text}</span>
            </li>
          ))}
        </ul>
      )}
    </li>
  );
}
