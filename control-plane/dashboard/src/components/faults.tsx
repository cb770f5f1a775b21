// Faults that are injected on purpose: said loudly wherever they act, so that nobody looks for another cause.
import type { Fault } from "../api/types";
import { latency, serviceName } from "../format";
import { serviceHref } from "../route";
import { Time } from "./parts";

export function Faults({ faults }: { faults: readonly Fault[] }) {
  return (
    <div role="status">
      {faults.length > 0 && (
        <div class="faults">
          <strong>Faults are being injected on purpose</strong>
          <ul>
            {faults.map((fault) => (
              <li key={`${fault.policy} ${fault.name} ${fault.service}`} data-fault={fault.service}>
                <a href={serviceHref(fault.service)}>{serviceName(fault.service).name}</a>: {inWords(fault)}; ends{" "}
                <Time timeMs={fault.untilMs} />
                <span class="note">
                  {" "}
                  TrafficPolicy {fault.policy}, fault {fault.name}
                </span>
              </li>
            ))}
          </ul>
        </div>
      )}
    </div>
  );
}

/** Beside the name of a service for which faults are injected. */
export function FaultMark() {
  return <span class="fault-mark">faults injected</span>;
}

/** "10 % delayed by 2.0 s, 25 % answered with 503; only requests of web.demo that it matches". */
export function inWords(fault: Fault): string {
  const what: string[] = [];
  if (fault.delayMs > 0) what.push(`${fault.delayPercent} % delayed by ${latency(fault.delayMs)}`);
  if (fault.abortStatus > 0) what.push(`${fault.abortPercent} % answered with ${fault.abortStatus}`);
  if (fault.callers.length === 0 && !fault.matches) return what.join(", ");
  const whose = fault.callers.length > 0 ? ` of ${fault.callers.join(", ")}` : "";
  return `${what.join(", ")}; only requests${whose}${fault.matches ? " that it matches" : ""}`;
}
