// The map's figures as two tables: services, and the calls between them.
import { useState } from "preact/hooks";
import { repeatsInWords } from "../activity";
import { FaultMark } from "../components/faults";
import { EdgeLink, HealthBadge, Success, TableFrame } from "../components/parts";
import { Lock } from "../components/icons";
import { NOTHING, count, latency, percent, rate } from "../format";
import { serviceHref } from "../route";
import type { MeshEdge } from "../api/types";
import type { Graph, MergedFigures } from "./graph";
import { transportInWords } from "./words";

/** Rows that are drawn unasked: each second all of them are drawn anew. */
const ROWS = 150;

export function TopologyTable({ graph, faulty }: { graph: Graph; faulty: ReadonlySet<string> }) {
  const [all, setAll] = useState(false);
  const edges = all ? graph.edges : graph.edges.slice(0, ROWS);
  return (
    <>
      <TableFrame label="Services">
        <table>
          <caption>Services</caption>
          <thead>
            <tr>
              <th scope="col">Service</th>
              <th scope="col">Health</th>
              <th scope="col" class="number">Ready</th>
              <th scope="col" class="number">Requests</th>
              <th scope="col" class="number">Success</th>
              <th scope="col" class="number">p50</th>
              <th scope="col" class="number">p99</th>
            </tr>
          </thead>
          <tbody>
            {graph.nodes.map((node) => (
              <tr key={node.id} data-service={node.id}>
                <th scope="row">
                  <a href={serviceHref(node.id)}>{node.name}</a> <span class="namespace">{node.namespace}</span>
                  {faulty.has(node.id) && <FaultMark />}
                </th>
                <td>
                  <HealthBadge health={node.health} word={node.word} />
                </td>
                <td class="number">{node.instances > 0 ? `${node.ready}/${node.instances}` : "–"}</td>
                <FigureCells figures={node.figures} />
              </tr>
            ))}
          </tbody>
        </table>
      </TableFrame>
      <TableFrame label="Calls">
        <table>
          <caption>Calls, and how routes split them</caption>
          <thead>
            <tr>
              <th scope="col">From</th>
              <th scope="col">To</th>
              <th scope="col" class="number">Share</th>
              <th scope="col">Transport</th>
              <th scope="col" class="number">Requests</th>
              <th scope="col" class="number">Success</th>
              <th scope="col" class="number">p50</th>
              <th scope="col" class="number">p99</th>
              <th scope="col">Repeated</th>
              <th scope="col">Refused by sidecars</th>
              <th scope="col">
                <span class="unseen">Page of the edge</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {edges.map((edge) => (
              <tr key={edge.id} data-edge={edge.id}>
                <td>
                  <a href={serviceHref(edge.from)}>{edge.from}</a>
                </td>
                <td>
                  <a href={serviceHref(edge.to)}>{edge.to}</a>
                </td>
                <td class="number">{edge.kind === "split" ? percent(edge.share) : ""}</td>
                <td>
                  {edge.mtls === "unsent" ? (
                    <span class="note">{NOTHING}</span>
                  ) : (
                    <span class={`transport ${edge.mtls === "all" ? "secured" : "plaintext"}`}>
                      <Lock closed={edge.mtls === "all"} />
                      {transportInWords(edge)}
                    </span>
                  )}
                </td>
                <FigureCells figures={edge.figures} />
                <td class="repeated">{repeatsInWords(edge.repeats)}</td>
                <td>{refusedBy(edge)}</td>
                <td>
                  {edge.kind === "call" && <EdgeLink edge={edge}>Edge</EdgeLink>}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableFrame>
      {graph.edges.length > ROWS && (
        <p class="quiet under">
          <button type="button" class="plain" onClick={() => setAll(!all)}>
            {all ? `Only the first ${ROWS}` : `All ${count(graph.edges.length, "call")}`}
          </button>
        </p>
      )}
    </>
  );
}

function FigureCells({ figures }: { figures: MergedFigures }) {
  const bound = figures.bound ? "≤ " : "";
  return (
    <>
      <td class="number">{rate(figures.rps)}</td>
      <td class="number">
        <Success {...figures} />
      </td>
      <td class="number">{figures.p50Ms === null ? "–" : bound + latency(figures.p50Ms)}</td>
      <td class="number">{figures.p99Ms === null ? "–" : bound + latency(figures.p99Ms)}</td>
    </>
  );
}

/** Refusals by the caller's sidecar, and there: by the one of the service. */
export function refusedBy({ refusals, refusalsByCallee }: Pick<MeshEdge, "refusals" | "refusalsByCallee">): string {
  const there = refused(refusalsByCallee);
  return [refused(refusals), there && `there: ${there}`].filter(Boolean).join("; ");
}

/** Refusals by reason, the most frequent first; nothing if there are none. */
export function refused(refusals: Record<string, number> | undefined): string {
  return Object.entries(refusals ?? {})
    .filter(([, rps]) => rps > 0)
    .sort(([, a], [, b]) => b - a)
    .map(([reason, rps]) => `${reason} ${rate(rps)}`)
    .join(", ");
}
