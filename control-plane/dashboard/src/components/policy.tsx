// The values that hold for calls of a service, and where each is from.
import type { Activity, Policy, PolicyField, PolicyReference } from "../api/types";
import { count, span } from "../format";
import { leaves } from "../leaves";
import { documentHref, editHref, newHref } from "../route";
import { ActivityCards } from "./activity";
import { Prose, TableFrame } from "./parts";

const DEFAULT = "default";

/** Those that somebody has written, and the others. */
export function parted(fields: readonly PolicyField[]): { written: PolicyField[]; usual: PolicyField[] } {
  return {
    written: fields.filter((field) => field.source !== DEFAULT),
    usual: fields.filter((field) => field.source === DEFAULT),
  };
}

/** What is written as a list or an object, part by part. */
export function partsOf({ field, value, structured }: Pick<PolicyField, "field" | "value" | "structured">): [string, string][] {
  return structured ? leaves(field, JSON.parse(value)) : [[field, value]];
}

export interface PolicySectionProps {
  policy: Policy;
  activity: Activity;
  references: readonly PolicyReference[];
}

export function PolicySection({ policy, activity, references }: PolicySectionProps) {
  return (
    <section aria-labelledby="policies-title" class="policy">
      <h2 id="policies-title">
        Policy <span class="note">and what it did in the last {span(activity.seconds * 1000)}</span>
      </h2>
      <ActivityCards policy={policy} activity={activity} />
      <References references={references} />
      <PolicyValues policy={policy} label="Policy values" />
    </section>
  );
}

/** The documents that take part, each with a link to what is written in it. */
export function References({ references }: { references: readonly PolicyReference[] }) {
  if (references.length === 0) return null;
  return (
    <ul class="policies">
      {references.map(({ kind, namespace, name }) => (
        <li key={`${kind}/${namespace}/${name}`}>
          <span class="note">{kind}</span>{" "}
          <a href={documentHref(plural(kind), namespace, name)}>
            <strong>
              {namespace}/{name}
            </strong>
          </a>{" "}
          <a class="note" href={editHref(plural(kind), namespace, name)}>
            Edit<span class="unseen"> {`${kind} ${namespace}/${name}`}</span>
          </a>
        </li>
      ))}
    </ul>
  );
}

/** As in the API's paths: "TrafficPolicy" is "trafficpolicies". */
export function plural(kind: string): string {
  const lower = kind.toLowerCase();
  return lower.endsWith("y") ? `${lower.slice(0, -1)}ies` : `${lower}s`;
}

/** What is written is shown; what is by default can be opened. */
export function PolicyValues({ policy, label }: { policy: Policy; label: string }) {
  const { written, usual } = parted(policy.fields);
  return (
    <>
      {written.length > 0 ? (
        <Values fields={written} label={label} />
      ) : (
        <p class="quiet">
          Defaults apply. To set others: <a href={newHref({ kind: "TrafficPolicy", service: policy.service })}>write a TrafficPolicy</a>, or <code>pillion apply -f policy.yaml</code>
        </p>
      )}
      {usual.length > 0 && (
        <details class="usual">
          <summary>{count(usual.length, "value")} by default</summary>
          <Values fields={usual} label={`${label}, by default`} />
        </details>
      )}
    </>
  );
}

function Values({ fields, label }: { fields: readonly PolicyField[]; label: string }) {
  return (
    <TableFrame label={label}>
      <table class="values">
        <thead>
          <tr>
            <th scope="col">Field</th>
            <th scope="col">Value</th>
            <th scope="col">From</th>
            <th scope="col">What it is</th>
          </tr>
        </thead>
        <tbody>
          {fields.flatMap((field) =>
            partsOf(field).map(([at, value], part) => (
              <tr key={`${at} ${field.source}`} data-field={at}>
                <th scope="row">{at}</th>
                <td class="value">{value}</td>
                <td class="from">{field.source}</td>
                <td class="note">{part === 0 && <Prose text={field.about} />}</td>
              </tr>
            )),
          )}
        </tbody>
      </table>
    </TableFrame>
  );
}
