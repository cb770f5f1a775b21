// One service: its figures over time, its endpoints as each caller's breaker sees them, callers and callees.
import type { ServiceDetail } from "../api/types";
import { EdgeTable } from "../components/edges";
import { EndpointTable } from "../components/endpoints";
import { EventList } from "../components/events";
import { Faults } from "../components/faults";
import { Golden } from "../components/golden";
import { Answer, HopsSection } from "../components/hops";
import { PolicySection } from "../components/policy";
import { RangeControl } from "../components/range";
import { Routes } from "../components/routes";
import { Empty, HealthBadge, Success, Tile } from "../components/parts";
import { byWeight, count, latency, percent, rate, serviceName } from "../format";
import { healthWord, limitedShare, serviceHealth } from "../health";
import { type Range, explainHref, go, meshHref, rangeParameters, serviceHref } from "../route";
import { liveHref, toService } from "./live/watch";
import { useResource } from "../state/resource";
import { useLive } from "../state/store";

export interface ServicePageProps {
  namespace: string;
  name: string;
  range: Range;
  /** The workload that somebody came for; empty: none. */
  marked: string;
}

export function ServicePage({ namespace, name, range, marked }: ServicePageProps) {
  const path = `${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  const { data, fault, absent } = useResource<ServiceDetail>(`v1/mesh/services/${path}?${rangeParameters(range)}`, path, range.until !== null);
  const { events, mesh } = useLive();
  const full = `${name}.${namespace}`;
  // Renewals are routine, and there are enough of them to hide the rest.
  const about = events.filter((event) => event.service === full && event.kind !== "certificate-renewed").slice(0, 8);
  return (
    <>
      <div class="page-head">
        <h1>
          {name} <span class="subject">{namespace}</span>
          {data && <HealthBadge health={serviceHealth(data)} word={healthWord(serviceHealth(data), limitedShare(data.rps, data.refusals))} />}
        </h1>
        <span class="ways">
          <a href={meshHref({ focus: full })}>On the map</a>
          <a href={liveHref(toService(full))}>Live requests</a>
          <a class="ask" href={explainHref({ to: full })}>
            Explain a request
          </a>
        </span>
        <RangeControl range={range} to={(wanted) => serviceHref(full, wanted, marked)} />
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
        <Detail detail={data} full={full} range={range} marked={marked} />
      )}
      {data !== null && about.length > 0 && (
        <section aria-labelledby="events-title">
          <h2 id="events-title">
            Events <span class="note">without certificate renewals</span>
          </h2>
          <EventList events={about} />
        </section>
      )}
    </>
  );
}

function Detail({ detail, full, range, marked }: { detail: ServiceDetail; full: string; range: Range; marked: string }) {
  const seconds = useLive().mesh?.window.seconds ?? 10;
  return (
    <>
      <dl class="tiles">
        <Tile label="Requests" note={`${range.until === null ? "last" : "the last"} ${seconds} s`}>
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

      <Answer hops={detail.hops ?? null} />
      <Golden series={detail.series} range={range} zoom={(wanted) => go(serviceHref(full, wanted, marked))} />

      <HopsSection full={full} hops={detail.hops ?? null} edges={detail.edgeHops ?? []} />

      {detail.routes.length > 0 && <Routes rules={detail.routes} full={full} />}
      {detail.backends.length > 0 && <Backends detail={detail} />}
      <Endpoints detail={detail} full={full} marked={marked} />

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
              {backend.weightsPercent.map((weight) => (
                <span key={weight} class="weight" style={{ left: `${weight}%` }} />
              ))}
            </span>
            <span class="value">{percent(backend.sharePercent === null ? null : backend.sharePercent / 100)}</span>
            <span class="note">
              {byWeight(backend.weightsPercent)}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Endpoints({ detail, full, marked }: { detail: ServiceDetail; full: string; marked: string }) {
  return (
    <section aria-labelledby="endpoints-title">
      <h2 id="endpoints-title">
        Endpoints <span class="note">now</span>
      </h2>
      {marked !== "" && detail.endpoints.every(({ workload }) => workload !== marked) && <p class="quiet">{marked} is not among them now.</p>}
      {detail.endpoints.length === 0 ? (
        <p class="quiet">
          No workload {detail.kind === "workload" ? "answers" : "is selected by this service"}. See <a href="#/workloads">workloads</a> for what has
          joined, and <code>pillion describe service {serviceName(full).name}</code> for its selector.
        </p>
      ) : (
        <EndpointTable endpoints={detail.endpoints} full={full} marked={marked} />
      )}
    </section>
  );
}
