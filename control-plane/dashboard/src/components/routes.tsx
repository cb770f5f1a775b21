// A service's rules in the order in which sidecars try them, each with its split as a bar.
import type { RouteRule } from "../api/types";
import { serviceName } from "../format";
import { serviceHref } from "../route";

/** More parts than this cannot be told apart by colour. */
const COLOURS = 4;

export function Routes({ rules, full }: { rules: readonly RouteRule[]; full: string }) {
  return (
    <section aria-labelledby="routes-title">
      <h2 id="routes-title">
        Routes <span class="note">the first that fits is taken</span>
      </h2>
      <ol class="routes">
        {rules.map((rule, index) => (
          <li key={index} data-rule={`${rule.route} ${rule.rule}`}>
            <div class="rule-head">
              <strong>{rule.conditions.length === 0 ? "Any request" : rule.conditions.join(" and ")}</strong>
              <span class="note">
                {rule.route}, rule {rule.rule}
              </span>
            </div>
            <Split backends={rule.backends} full={full} />
            {rule.effects.length > 0 && (
              <ul class="effects note">
                {rule.effects.map((effect) => (
                  <li key={effect}>{effect}</li>
                ))}
              </ul>
            )}
          </li>
        ))}
      </ol>
    </section>
  );
}

export function Split({ backends, full }: { backends: RouteRule["backends"]; full: string }) {
  const parts = backends.filter((backend) => backend.sharePercent > 0);
  if (parts.length === 0) return null;
  return (
    <>
      <div class="split-bar" aria-hidden="true">
        {parts.map((backend, index) => (
          <span key={index} class={`part part-${index % COLOURS}`} style={{ width: `${backend.sharePercent}%` }} />
        ))}
      </div>
      <ul class="split-key">
        {parts.map((backend, index) => (
          <li key={index}>
            <span class={`swatch part-${index % COLOURS}`} aria-hidden="true" />
            {backend.service === full ? serviceName(backend.service).name : <a href={serviceHref(backend.service)}>{serviceName(backend.service).name}</a>}
            <span class="note">:{backend.port}</span> {Number(backend.sharePercent.toFixed(2))} %
          </li>
        ))}
      </ul>
    </>
  );
}
