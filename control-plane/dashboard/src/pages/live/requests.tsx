// The list: rows of one height in a box of one height, what began last on top.
import type { ComponentChildren, VNode } from "preact";
import { useRef } from "preact/hooks";
import type { TapEvent } from "../../api/tap";
import { HopBar } from "../../components/hops";
import { Lock } from "../../components/icons";
import { exact, latency, serviceName } from "../../format";
import { KEPT, type Row } from "../../state/tap";
import { hopsOf, isBad, outcome, timeOfDay } from "./words";

export interface RequestsProps {
  rows: readonly Row[];
  chosen: number | null;
  choose: (id: number | null) => void;
  /** Shown where there are none. */
  children: ComponentChildren;
}

export function Requests({ rows, chosen, choose, children }: RequestsProps) {
  // What was made of a request once is made of it for good, so that only new ones are drawn; and they are drawn into the rows of those
  // that have left.
  const made = useRef(new WeakMap<Row, VNode>());
  const drawn = (row: Row): VNode => {
    const key = row.id % KEPT;
    if (row.id === chosen) return <Line key={key} row={row} isChosen choose={choose} />;
    const known = made.current.get(row);
    if (known) return known;
    const fresh = <Line key={key} row={row} isChosen={false} choose={choose} />;
    made.current.set(row, fresh);
    return fresh;
  };
  return (
    <div class="live-frame" role="region" aria-label="Requests, the newest first" tabIndex={0}>
      <table class="live-list">
        <thead>
          <tr>
            <th scope="col" class="when">Time</th>
            <th scope="col" class="who">From, to</th>
            <th scope="col" class="what">Request</th>
            <th scope="col" class="outcome">Outcome</th>
            <th scope="col" class="number took">Took</th>
            <th scope="col" class="where">Where the time went</th>
            <th scope="col" class="tls">TLS</th>
          </tr>
        </thead>
        <tbody>{rows.map(drawn)}</tbody>
      </table>
      {children}
    </div>
  );
}

/** Another request's has another button, lest who has moved to one opens what has come in its place. */
export function Line({ row, isChosen, choose }: { row: Row; isChosen: boolean; choose: (id: number | null) => void }) {
  const { request } = row;
  const fromTo = `${serviceName(request.from).name} → ${serviceName(request.to).name}`;
  return (
    <tr class={isChosen ? "chosen" : undefined} data-outcome={isBad(request) ? "bad" : "good"} data-path={request.path}>
      <td class="when">
        <button key={row.id} type="button" aria-expanded={isChosen} title={exact(request.timeMs)} onClick={() => choose(isChosen ? null : row.id)}>
          {timeOfDay(request.timeMs)}
        </button>
      </td>
      <td class="who" title={who(request)}>
        {fromTo}
        {request.workload && <span class="note"> {request.workload}</span>}
      </td>
      <td class="what" title={`${request.method} ${request.path}`}>
        <span class="method">{request.method}</span> {request.path}
        <div class="note who-below">{fromTo}</div>
      </td>
      <td class={`outcome ${isBad(request) ? "failing" : "good"}`} title={outcome(request)}>
        {outcome(request)}
      </td>
      <td class="number took">{latency(request.durationMs)}</td>
      <td class="where">
        <HopBar segments={hopsOf(request).segments} />
      </td>
      <Carried mtls={request.mtls} />
    </tr>
  );
}

function Carried({ mtls }: Pick<TapEvent, "mtls">) {
  if (mtls === undefined) return <td class="tls" title="no callee was reached"></td>;
  return (
    <td class="tls" title={mtls ? "mutual TLS" : "plaintext"}>
      <span class={`transport ${mtls ? "secured" : "plaintext"}`}>
        <Lock closed={mtls} />
        <span class="unseen">{mtls ? "mTLS" : "plaintext"}</span>
      </span>
    </td>
  );
}

function who({ from, to, backend, workload, sidecar, direction }: TapEvent): string {
  const served = [backend, workload].filter((name) => name !== undefined).join(", ");
  return `${from} → ${to}${served && ` (${served})`}, ${direction} at ${sidecar}`;
}
