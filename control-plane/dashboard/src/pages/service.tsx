// One service: its golden figures over time, its endpoints as each caller's breaker sees them, callers and callees.
import type { Endpoint, MeshEdge, ServiceDetail } from "../api/types";
import { repeatsInWords } from "../activity";
import { type BreakerGroup, groupBreakers } from "../breakers";
import { Chart } from "../components/chart";
import { EventList } from "../components/events";
import { Faults } from "../components/faults";
import { HopsSection } from "../components/hops";
import { PolicySection } from "../components/policy";
import { Routes } from "../components/routes";
import { Empty, HealthBadge, Success, Tile, Transport } from "../components/parts";
import { count, latency, percent, rate, serviceName } from "../format";
import { serviceHealth } from "../health";
import { SPANS_MINUTES, href, serviceHref } from "../route";
import { useResource } from "../state/resource";
import { useLive } from "../state/store";
import { isNode } from "../topology/graph";
import { refused } from "../topology/table";

export interface ServicePageProps {
  namespace: string;
  name: string;
  minutes: number;
}

export function ServicePage({ namespace, name, minutes }: ServicePageProps) {
  const path = `${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  const { data, fault, absent } = useResource<ServiceDetail>(`v1/mesh/services/${path}?minutes=${minutes}`);
  const { events, mesh } = useLive();
  const full = `${name}.${namespace}`;
  const about = events.filter((event) => event.service === full).slice(0, 8);
  return (
    <>
      <div class="page-head">
        <h1>
          {name} <span class="subject">{namespace}</span>
          {data && <HealthBadge health={serviceHealth(data)} />}
        </h1>
        <a class="ask" href={href({ page: "explain", question: { from: "", to: full, method: "GET", path: "/", headers: "" } })}>
          Explain a request
        </a>
        <div class="switch" role="group" aria-label="Time span">
          {SPANS_MINUTES.map((span) => (
            <a
              key={span}
              href={href({ page: "service", namespace, name, minutes: span })}
              aria-current={span === minutes ? "true" : undefined}
            >
              {span} min
            </a>
          ))}
        </div>
      </div>
      <Faults faults={(mesh?.faults ?? []).filter((active) => active.service === full)} />
      {fault && !absent && <p class="fault">{fault} What is shown is the last good answer.</p>}
      {absent && data === null ? (
        <Empty title={`The mesh knows no ${full}`}>
          <p>
            It may have been deleted, or nothing of it ever ran. <a href="#/">The mesh</a> shows what is there; to create it:
          </p>
          <pre>pillion apply -f service.yaml</pre>
        </Empty>
      ) : data === null ? (
        <p class="waiting">Loading…</p>
      ) : (
        <Detail detail={data} full={full} />
      )}
      {about.length > 0 && (
        <section aria-labelledby="events-title">
          <h2 id="events-title">Events</h2>
          <EventList events={about} />
        </section>
      )}
    </>
  );
}

function Detail({ detail, full }: { detail: ServiceDetail; full: string }) {
  const { series } = detail;
  const seconds = useLive().mesh?.window.seconds ?? 10;
  return (
    <>
      <dl class="tiles">
        <Tile label="Requests" note={`last ${seconds} s`}>
          {rate(detail.rps)}
        </Tile>
        <Tile label="Success">
          <Success {...detail} />
        </Tile>
        <Tile label="Latency p50">{latency(detail.p50Ms)}</Tile>
        <Tile label="Latency p99">{latency(detail.p99Ms)}</Tile>
        <Tile label="Ready">
          {detail.ready} of {count(detail.instances, "endpoint")}
        </Tile>
      </dl>

      <section class="charts" aria-label="Golden figures">
        <Chart
          title="Requests"
          timesMs={series.timesMs}
          format={rate}
          lines={[{ label: "rate", values: series.rps, colour: "--line-1", fill: true }]}
        />
        <Chart
          title="Success"
          timesMs={series.timesMs}
          format={percent}
          range={successRange}
          lines={[{ label: "success", values: series.successRate, colour: "--line-2" }]}
        />
        <Chart
          title="Latency"
          timesMs={series.timesMs}
          format={latency}
          lines={[
            { label: "p50", values: series.p50Ms, colour: "--line-1" },
            { label: "p90", values: series.p90Ms, colour: "--line-3", dash: [8, 4] },
            { label: "p99", values: series.p99Ms, colour: "--line-4", dash: [3, 3] },
          ]}
        />
      </section>

      <HopsSection full={full} hops={detail.hops ?? null} edges={detail.edgeHops ?? []} />

      {detail.routes.length > 0 && <Routes rules={detail.routes} full={full} />}
      {detail.backends.length > 0 && <Backends detail={detail} />}
      <Endpoints detail={detail} full={full} />

      <div class="pair">
        <EdgeTable title="Callers" edges={detail.callers} end="from" nobody="Nobody has called it lately." />
        <EdgeTable title="Calls" edges={detail.callees} end="to" nobody="It has called nothing lately." />
      </div>

      {detail.policy ? (
        <PolicySection policy={detail.policy} activity={detail.activity} references={detail.policies} />
      ) : (
        <p class="quiet alone">No policy is for a workload that no service selects.</p>
      )}
    </>
  );
}

/** From a little under the worst (at 99 % or lower) to 100 %, so that small dips show and calm looks calm. */
function successRange(least: number): [number, number] {
  const floor = Math.min(least, 0.99);
  return [Math.max(0, floor - (1 - floor) * 0.15), 1];
}

function Backends({ detail }: { detail: ServiceDetail }) {
  return (
    <section aria-labelledby="backends-title">
      <h2 id="backends-title">Backends</h2>
      <ul class="backends">
        {detail.backends.map((backend) => (
          <li key={backend.service}>
            <a href={serviceHref(backend.service)}>{serviceName(backend.service).name}</a>
            <span class="bar" aria-hidden="true">
              <span class="share" style={{ width: `${backend.sharePercent ?? 0}%` }} />
              {backend.weightPercent !== null && <span class="weight" style={{ left: `${backend.weightPercent}%` }} />}
            </span>
            <span class="value">{percent(backend.sharePercent === null ? null : backend.sharePercent / 100)}</span>
            <span class="note">
              {backend.weightPercent === null ? "no weight" : `of ${Number(backend.weightPercent.toFixed(1))} % by weight`}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Endpoints({ detail, full }: { detail: ServiceDetail; full: string }) {
  return (
    <section aria-labelledby="endpoints-title">
      <h2 id="endpoints-title">Endpoints</h2>
      {detail.endpoints.length === 0 ? (
        <p class="quiet">
          No workload {detail.kind === "workload" ? "answers" : "is selected by this service"}. See{" "}
          <a href={href({ page: "workloads" })}>workloads</a> for what has joined, and{" "}
          <code>pillion describe service {serviceName(full).name}</code> for its selector.
        </p>
      ) : (
        <div class="table-frame" role="region" aria-labelledby="endpoints-title" tabIndex={0}>
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
                <th scope="col">Address</th>
              </tr>
            </thead>
            <tbody>
              {detail.endpoints.map((endpoint) => (
                <EndpointRow key={endpoint.uid} endpoint={endpoint} full={full} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function EndpointRow({ endpoint, full }: { endpoint: Endpoint; full: string }) {
  const groups = groupBreakers(endpoint.breakers);
  return (
    <tr data-workload={endpoint.workload}>
      <th scope="row" title={`${endpoint.spiffeId}\n${endpoint.uid}`}>
        {endpoint.workload}
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
      <td class="address">{endpoint.address}</td>
    </tr>
  );
}

function BreakerLine({ group, full }: { group: BreakerGroup; full: string }) {
  const health = group.state === "open" ? "failing" : group.state === "half-open" ? "degraded" : "good";
  const facts = [`share ${percent(group.share)}`, `${group.inFlight} in flight`, `estimate ${latency(group.latencyMs)}`];
  if (group.openMs > 0) facts.unshift(`for ${latency(group.openMs)} more`);
  if (group.opened > 0) facts.push(`opened ${group.opened}×${group.openedReason ? `: ${group.openedReason}` : ""}`);
  return (
    <li data-breaker={group.state}>
      <HealthBadge health={health} word={group.state} />
      <a href={serviceHref(group.from)} title={group.workloads.join(", ")}>
        {group.workloads.length === 1 ? group.workloads[0] : `${serviceName(group.from).name} ×${group.workloads.length}`}
      </a>
      {group.service !== full && <span class="note">as {serviceName(group.service).name}</span>}
      <span class="note">{facts.join(", ")}</span>
    </li>
  );
}

function EdgeTable({ title, edges, end, nobody }: { title: string; edges: MeshEdge[]; end: "from" | "to"; nobody: string }) {
  const id = `${end}-title`;
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {edges.length === 0 ? (
        <p class="quiet">{nobody}</p>
      ) : (
        <div class="table-frame" role="region" aria-labelledby={id} tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">Service</th>
                <th scope="col">Transport</th>
                <th scope="col" class="number">Requests</th>
                <th scope="col" class="number">Success</th>
                <th scope="col" class="number">p99</th>
                <th scope="col">Repeated</th>
                <th scope="col">Refused</th>
              </tr>
            </thead>
            <tbody>
              {edges.map((edge) => (
                <tr key={`${edge.from} ${edge.to} ${edge.backend ?? ""}`}>
                  <th scope="row">
                    {isNode(edge[end]) ? <a href={serviceHref(edge[end])}>{serviceName(edge[end]).name}</a> : edge[end]}
                    {edge.backend && edge.backend !== edge.to && <span class="namespace"> via {serviceName(edge.backend).name}</span>}
                  </th>
                  <td>
                    {isNode(edge[end]) ? <Transport edge={edge} /> : <span class="note">none</span>}
                  </td>
                  <td class="number">{rate(edge.rps)}</td>
                  <td class="number">
                    <Success {...edge} />
                  </td>
                  <td class="number">{latency(edge.p99Ms)}</td>
                  <td class="repeated">{repeatsInWords(edge.repeats) || <span class="note">none</span>}</td>
                  <td>{refused(edge.refusals) || <span class="note">none</span>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
