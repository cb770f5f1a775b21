// One edge: all that goes from one service, or lone workload, to another, as the caller's sidecars measured it.
import type { EdgeDetail, Fault, MeshEdge } from "../api/types";
import { repeatsInWords } from "../activity";
import { EndpointTable } from "../components/endpoints";
import { Faults } from "../components/faults";
import { Golden } from "../components/golden";
import { Answer, ByWorkload, HopBar, HopKey, VerdictLine, mostOf } from "../components/hops";
import { References } from "../components/policy";
import { RangeControl } from "../components/range";
import { Empty, HealthBadge, Success, TableFrame, Tile, Transport } from "../components/parts";
import { NOTHING, latency, percent, rate, serviceName } from "../format";
import { edgeHealth, healthWord, limitedOnEdge } from "../health";
import { type Range, edgeHref, explainHref, go, meshHref, rangeParameters, serviceHref } from "../route";
import { useResource } from "../state/resource";
import { useLive } from "../state/store";
import { refusedBy } from "../topology/table";

export interface EdgePageProps {
  from: string;
  to: string;
  range: Range;
}

export function EdgePage({ from, to, range }: EdgePageProps) {
  const path = `${encodeURIComponent(from)}/${encodeURIComponent(to)}`;
  const { data, fault, absent } = useResource<EdgeDetail>(`v1/mesh/edges/${path}?${rangeParameters(range)}`, path, range.until !== null);
  const { mesh } = useLive();
  return (
    <>
      <div class="page-head">
        <h1>
          <End name={from} /> <span aria-label="to">→</span> <End name={to} />
          {data && <HealthBadge health={edgeHealth(data)} word={healthWord(edgeHealth(data), limitedOnEdge(data))} />}
        </h1>
        <span class="ways">
          <a href={meshHref({ focus: to })}>On the map</a>
          <a class="ask" href={explainHref({ from, to })}>
            Explain a request
          </a>
        </span>
        <RangeControl range={range} to={(wanted) => edgeHref(from, to, wanted)} />
      </div>
      <Faults faults={(mesh?.faults ?? []).filter((active) => concerns(active, from, to, data?.backends ?? []))} />
      {fault && !absent && <p class="fault">{fault} What is shown is the last good answer.</p>}
      {absent && data === null ? (
        <Empty title={`Nothing goes from ${from} to ${to}`}>
          <p>
            No request has gone that way within the last half hour. <a href={serviceHref(to)}>{to}</a> shows who calls it.
          </p>
        </Empty>
      ) : data === null ? (
        <p class="waiting">Loading…</p>
      ) : (
        <Detail detail={data} range={range} />
      )}
    </>
  );
}

function End({ name }: { name: string }) {
  const parts = serviceName(name);
  return (
    <a class="end" href={serviceHref(name)}>
      {parts.name} <span class="subject">{parts.namespace}</span>
    </a>
  );
}

function Detail({ detail, range }: { detail: EdgeDetail; range: Range }) {
  const { from, to } = detail;
  const window = useLive().mesh?.window.seconds ?? 10;
  return (
    <>
      <dl class="tiles">
        <Tile label="Requests" note={`last ${window} s`}>
          {rate(detail.rps)}
        </Tile>
        <Tile label="Success">
          <Success {...detail} />
        </Tile>
        <Tile label="Latency p50">{latency(detail.p50Ms)}</Tile>
        <Tile label="Latency p99">{latency(detail.p99Ms)}</Tile>
        <Tile label="Transport">
          <Transport edge={detail} />
        </Tile>
        <Tile label="Refused" note={refusedBy(detail) || "by no sidecar"}>
          {rate([...Object.values(detail.refusals ?? {}), ...Object.values(detail.refusalsByCallee ?? {})].reduce((sum, rps) => sum + rps, 0))}
        </Tile>
      </dl>

      <Answer hops={detail.hops} />
      <Golden series={detail.series} range={range} zoom={(wanted) => go(edgeHref(from, to, wanted))} />

      <section aria-labelledby="hops-title" class="hops">
        <h2 id="hops-title">
          Where the time goes <span class="note">{range.until === null ? "last minute" : "the minute before"}, mean</span>
        </h2>
        {detail.hops ? (
          <div class="panel">
            <div class="all" data-most={mostOf(detail.hops)}>
              <VerdictLine hops={detail.hops} />
              <HopBar segments={detail.hops.segments} />
              <HopKey segments={detail.hops.segments} />
              <ByWorkload workloads={detail.hops.workloads ?? []} service={to} />
            </div>
          </div>
        ) : (
          <p class="quiet">No request's time was split within that minute.</p>
        )}
      </section>

      <Backends rows={detail.backends} to={to} />

      <section aria-labelledby="endpoints-title">
        <h2 id="endpoints-title">
          Endpoints <span class="note">now, as {serviceName(from).name} sees them</span>
        </h2>
        {detail.endpoints.length > 0 ? (
          <EndpointTable endpoints={detail.endpoints} full={to} />
        ) : (
          <p class="quiet">No workload serves {to}.</p>
        )}
      </section>

      <section aria-labelledby="policies-title">
        <h2 id="policies-title">Policies and routes</h2>
        {detail.policies.length > 0 ? (
          <References references={detail.policies} />
        ) : (
          <p class="quiet">Defaults apply: no document is about it. </p>
        )}
        <p class="quiet">
          Every value that holds is on the page of <a href={serviceHref(to)}>{serviceName(to).name}</a>.
        </p>
      </section>
    </>
  );
}

function Backends({ rows, to }: { rows: readonly MeshEdge[]; to: string }) {
  if (rows.length === 0) return null;
  return (
    <section aria-labelledby="backends-title">
      <h2 id="backends-title">Served by</h2>
      <TableFrame by="backends-title">
        <table>
          <thead>
            <tr>
              <th scope="col">Service</th>
              <th scope="col" class="number">Share</th>
              <th scope="col">Transport</th>
              <th scope="col" class="number">Requests</th>
              <th scope="col" class="number">Success</th>
              <th scope="col" class="number">p50</th>
              <th scope="col" class="number">p99</th>
              <th scope="col">Repeated</th>
              <th scope="col">Refused</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => {
              const name = row.backend || to;
              const all = rows.reduce((sum, { rps }) => sum + rps, 0);
              return (
                <tr key={name} data-backend={name}>
                  <th scope="row">
                    <a href={serviceHref(name)}>{serviceName(name).name}</a> <span class="namespace">{serviceName(name).namespace}</span>
                  </th>
                  <td class="number">{all > 0 ? percent(row.rps / all) : NOTHING}</td>
                  <td>
                    <Transport edge={row} />
                  </td>
                  <td class="number">{rate(row.rps)}</td>
                  <td class="number">
                    <Success {...row} />
                  </td>
                  <td class="number">{latency(row.p50Ms)}</td>
                  <td class="number">{latency(row.p99Ms)}</td>
                  <td class="repeated">{repeatsInWords(row.repeats) || <span class="note">none</span>}</td>
                  <td>{refusedBy(row) || <span class="note">none</span>}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </TableFrame>
    </section>
  );
}

/** Whether a fault is for requests of this caller, whichever service answers them. */
export function concerns(fault: Fault, from: string, to: string, rows: readonly MeshEdge[]): boolean {
  const serves = fault.service === to || rows.some(({ backend }) => backend === fault.service);
  const { namespace } = serviceName(from);
  return serves && (fault.callers.length === 0 || fault.callers.includes(from) || fault.callers.includes(`*.${namespace}`));
}
