// Who serves: load, health and breakers of each workload, and where its own time goes.
import { useEffect, useRef } from "preact/hooks";
import type { Endpoint } from "../api/types";
import { type BreakerGroup, groupBreakers } from "../breakers";
import { latency, percent, rate, serviceName } from "../format";
import { serviceHref, workloadHref } from "../route";
import { HopBar } from "./hops";
import { HealthBadge, Success, TableFrame } from "./parts";

export interface EndpointsProps {
  endpoints: readonly Endpoint[];
  /** The service that the page is about. */
  full: string;
  /** The workload that somebody came for: brought into sight once. */
  marked?: string;
}

export function EndpointTable({ endpoints, full, marked = "" }: EndpointsProps) {
  return (
    <>
      <TableFrame by="endpoints-title">
        <table class="endpoints">
          <thead>
            <tr>
              <th scope="col">Workload</th>
              <th scope="col">State</th>
              <th scope="col">Breakers and shares, by caller</th>
              <th scope="col">Zone</th>
              <th scope="col" class="number">Weight</th>
              <th scope="col" class="number">Requests</th>
              <th scope="col" class="number">Success</th>
              <th scope="col" class="number">p50</th>
              <th scope="col" class="number">p99</th>
              <th scope="col">Its own time</th>
              <th scope="col">Address</th>
            </tr>
          </thead>
          <tbody>
            {endpoints.map((endpoint) => (
              <EndpointRow key={endpoint.uid} endpoint={endpoint} full={full} isMarked={endpoint.workload === marked} />
            ))}
          </tbody>
        </table>
      </TableFrame>
      <p class="quiet under">
        <em>Its own time</em> is what each workload's sidecar measures from there on: sidecar and application. The whole way to each, as its callers see
        it, is above.
      </p>
    </>
  );
}

function EndpointRow({ endpoint, full, isMarked }: { endpoint: Endpoint; full: string; isMarked: boolean }) {
  const groups = groupBreakers(endpoint.breakers);
  const row = useRef<HTMLTableRowElement>(null);
  useEffect(() => {
    if (isMarked) row.current?.scrollIntoView({ block: "center" });
  }, [isMarked]);
  return (
    <tr ref={row} data-workload={endpoint.workload} aria-current={isMarked ? "true" : undefined}>
      <th scope="row" title={`${endpoint.spiffeId}\n${endpoint.uid}`}>
        <a href={workloadHref(endpoint.workload, full)}>{endpoint.workload}</a>
      </th>
      <td>
        <HealthBadge health={endpoint.ready ? "good" : "failing"} word={endpoint.ready ? "ready" : "not ready"} />
        {!endpoint.ready && endpoint.reason && <div class="note">{endpoint.reason}</div>}
      </td>
      <td>
        {groups.length === 0 ? (
          <span class="note">no caller</span>
        ) : (
          <ul class="breakers">
            {groups.map((group) => (
              <BreakerLine key={`${group.from} ${group.service} ${group.state}`} group={group} full={full} />
            ))}
          </ul>
        )}
      </td>
      <td>{endpoint.zone || <span class="note">none</span>}</td>
      <td class="number">{endpoint.weight} %</td>
      <td class="number">{rate(endpoint.rps)}</td>
      <td class="number">
        <Success {...endpoint} />
      </td>
      <td class="number">{latency(endpoint.p50Ms)}</td>
      <td class="number">{latency(endpoint.p99Ms)}</td>
      <td class="own">{endpoint.hops ? <HopBar segments={endpoint.hops.segments} /> : <span class="note">not split</span>}</td>
      <td class="address">{endpoint.address}</td>
    </tr>
  );
}

function BreakerLine({ group, full }: { group: BreakerGroup; full: string }) {
  const health = group.state === "open" ? "failing" : group.state === "half-open" ? "degraded" : "good";
  const facts = [`share ${percent(group.share)}`, `${group.inFlight} in flight`, `estimate ${latency(group.latencyMs)}`];
  if (group.openMs > 0) facts.unshift(`for ${latency(group.openMs)} more`);
  if (group.opened > 0) facts.push(`opened ${group.opened}×${group.openedReason ? `, last: ${group.openedReason}` : ""}`);
  return (
    <li data-breaker={group.state}>
      <HealthBadge health={health} word={group.state} />
      {group.workloads.length === 1 ? (
        <a href={workloadHref(group.workloads[0]!, group.from)}>{group.workloads[0]}</a>
      ) : (
        <a href={serviceHref(group.from)} title={group.workloads.join(", ")}>
          {serviceName(group.from).name} ×{group.workloads.length}
        </a>
      )}
      {group.service !== full && <span class="note">as {serviceName(group.service).name}</span>}
      <span class="note">
        {facts.map((fact, index) => [index > 0 && " ", <span key={index} class="fact">{`${fact}${index < facts.length - 1 ? "," : ""}`}</span>])}
      </span>
    </li>
  );
}
