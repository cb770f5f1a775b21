// The map of the mesh: nodes are links to their service's page, edges carry their figures. A table shows the same.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { repeatsInWords } from "../activity";
import { FaultMark } from "../components/faults";
import { HealthShape, Lock, LockPaths, UnlockedPaths } from "../components/icons";
import { Sparkline } from "../components/parts";
import { latency, percent, rate } from "../format";
import { DEGRADED_BELOW, FAILING_BELOW, HEALTH_WORDS, type Health } from "../health";
import { serviceHref } from "../route";
import { type Graph, type GraphEdge, type GraphNode, type MergedFigures, signature } from "./graph";
import { LABEL, NODE, type Orientation, type Placed, place } from "./layout";

/** Narrower than this, the layers go down the page. */
const NARROW = 900;
/** Shrunk further than this nobody can read it: then it scrolls. */
const SMALLEST = { right: 0.8, down: 0.72 } as const;

export interface TopologyMapProps {
  graph: Graph;
  rates: ReadonlyMap<string, readonly number[]>;
  /** Services for which faults are injected. */
  faulty: ReadonlySet<string>;
}

export function TopologyMap({ graph, rates, faulty }: TopologyMapProps) {
  const frame = useRef<HTMLDivElement>(null);
  const width = useWidth(frame);
  const [pointed, setPointed] = useState<string | null>(null);
  const orientation: Orientation = width < NARROW ? "down" : "right";
  const shape = signature(graph);
  // Only the shape matters to the layout; `graph` itself is another one with each message.
  const placed = useMemo(() => place(graph, orientation), [shape, orientation]);
  const scale = Math.min(1, Math.max(SMALLEST[orientation], width / placed.width));
  const near = pointed === null ? null : neighbours(graph, pointed);

  return (
    <div
      class="map"
      ref={frame}
      role="group"
      aria-label="Map of the mesh. The table view shows the same figures."
      tabIndex={placed.width * scale > width + 1 ? 0 : undefined}
    >
      {width > 0 && (
        <div class="map-size" style={{ width: `${placed.width * scale}px`, height: `${placed.height * scale}px` }}>
          <div
            class={`map-content ${near ? "pointing" : ""}`}
            style={{ width: `${placed.width}px`, height: `${placed.height}px`, transform: `scale(${scale})` }}
          >
            <Edges graph={graph} placed={placed} near={near} />
            <ul class="nodes">
              {graph.nodes.map((node) => (
                <Node
                  key={node.id}
                  node={node}
                  placed={placed}
                  orientation={orientation}
                  rates={rates.get(node.id) ?? []}
                  faulty={faulty.has(node.id)}
                  faded={near !== null && !near.has(node.id)}
                  point={setPointed}
                />
              ))}
            </ul>
          </div>
        </div>
      )}
    </div>
  );
}

/** What shapes, lines and signs on the map mean. */
export function MapKey() {
  return (
    <p class="key">
      {(["good", "degraded", "failing", "idle"] as const).map((health) => (
        <span key={health}>
          <HealthShape health={health} />
          {KEY[health]}
        </span>
      ))}
      <span>
        <Lock closed={true} /> mutual TLS
      </span>
      <span>
        <Lock closed={false} /> plaintext
      </span>
      <span>Line width: requests per second</span>
      <span>≤ upper bound over several backends</span>
    </p>
  );
}

const KEY: Record<Health, string> = {
  good: `${DEGRADED_BELOW * 100} % or more succeed`,
  degraded: `under ${DEGRADED_BELOW * 100} % succeed, or not all ready`,
  failing: `under ${FAILING_BELOW * 100} % succeed, or none ready`,
  idle: "no traffic",
};

function Edges({ graph, placed, near }: { graph: Graph; placed: Placed; near: Set<string> | null }) {
  const busiest = Math.max(...graph.edges.map((edge) => edge.figures.rps), 1);
  return (
    <svg width={placed.width} height={placed.height} class="edges" role="group" aria-label="Calls between services">
      <defs>
        {(Object.keys(HEALTH_WORDS) as Health[]).map((health) => (
          <marker key={health} id={`arrow-${health}`} class={health} viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">
            <path d="M0.5 0.5L7.5 4L0.5 7.5z" fill="var(--tone)" />
          </marker>
        ))}
      </defs>
      {graph.edges.map((edge) => (
        <Edge key={edge.id} edge={edge} placed={placed} busiest={busiest} faded={near !== null && !near.has(edge.id)} />
      ))}
    </svg>
  );
}

function Edge({ edge, placed, busiest, faded }: { edge: GraphEdge; placed: Placed; busiest: number; faded: boolean }) {
  const at = placed.edges.get(edge.id);
  if (at === undefined) return null;
  // The square root keeps a busy edge from hiding what the quiet ones are.
  const line = edge.figures.rps > 0 ? 1.25 + 3.25 * Math.sqrt(edge.figures.rps / busiest) : 1.25;
  const left = at.label.x - LABEL.width / 2;
  const top = at.label.y - LABEL.height / 2;
  const plain = edge.mtls !== "all";
  return (
    <g
      class={`edge ${edge.kind} ${edge.health} ${plain ? "plaintext" : "secured"} ${faded ? "faded" : ""}`}
      role="img"
      aria-label={edgeInWords(edge)}
      data-edge={edge.id}
      data-mtls={edge.mtls}
      data-rps={edge.figures.rps.toFixed(2)}
    >
      <title>{edgeInWords(edge)}</title>
      <path d={at.path} class="line" stroke-width={line} marker-end={`url(#arrow-${edge.health})`} />
      <rect x={left} y={top} width={LABEL.width} height={LABEL.height} rx="7" class="label" />
      <g transform={`translate(${left + 8},${top + 4.5})`} class="glyph">
        {plain ? <UnlockedPaths /> : <LockPaths />}
      </g>
      <text x={left + 23} y={top + 15.5} class="first">
        {edge.kind === "split" && <tspan class="share">{`${percent(edge.share)} = `}</tspan>}
        <tspan class="rps">{rate(edge.figures.rps)}</tspan>
        {edge.kind === "call" && <tspan class="separator"> · </tspan>}
        {edge.kind === "call" && <tspan class="rate">{percent(edge.figures.successRate)}</tspan>}
      </text>
      <text x={left + 8} y={top + 30.5} class="second">
        {plain ? <tspan class="warning">{edge.mtls === "none" ? "plaintext" : "partly plaintext"}</tspan> : briefQuantiles(edge.figures)}
      </text>
    </g>
  );
}

interface NodeProps {
  node: GraphNode;
  placed: Placed;
  orientation: Orientation;
  rates: readonly number[];
  faulty: boolean;
  faded: boolean;
  point: (id: string | null) => void;
}

function Node({ node, placed, orientation, rates, faulty, faded, point }: NodeProps) {
  const at = placed.nodes.get(node.id);
  if (at === undefined) return null;
  const box = NODE[orientation];
  const transform = `translate(${at.x - box.width / 2}px, ${at.y - box.height / 2}px)`;
  const source = node.figures.rps <= 0 && node.sendsRps > 0;
  return (
    <li class={`node ${node.health} ${faded ? "faded" : ""}`} style={{ transform, width: `${box.width}px`, height: `${box.height}px` }}>
      <a
        href={serviceHref(node.id)}
        data-node={node.id}
        onMouseEnter={() => point(node.id)}
        onMouseLeave={() => point(null)}
        onFocus={() => point(node.id)}
        onBlur={() => point(null)}
      >
        <span class="name">
          <HealthShape health={node.health} />
          <strong title={node.id}>{node.name}</strong>
          <span class="unseen">{` in ${node.namespace}, ${HEALTH_WORDS[node.health]},`}</span>
        </span>
        <span class="flow">
          <span class="rps">{rate(source ? node.sendsRps : node.figures.rps)}</span>
          <span class="ready" title={readiness(node)}>
            {node.instances > 0 ? `${node.ready}/${node.instances} ready` : node.kind === "service" ? "no endpoints" : "not in mesh"}
          </span>
        </span>
        <span class="figures">
          {source ? (
            <span class="note">sent, none received</span>
          ) : (
            <>
              <span>
                {percent(node.figures.successRate)}
                <span class="unseen"> succeed,</span>
              </span>
              <span>
                <span class="note">p99 </span>
                {node.figures.bound && node.figures.p99Ms !== null ? "≤" : ""}
                {latency(node.figures.p99Ms)}
              </span>
            </>
          )}
        </span>
        <Sparkline values={rates} width={box.width - 28} height={16} />
        {faulty && <FaultMark />}
      </a>
    </li>
  );
}

/** p50 and p99 in one line; "≤" where they are bounds over several edges. */
export function quantiles(figures: MergedFigures): string {
  if (figures.p50Ms === null && figures.p99Ms === null) return "no requests";
  const bound = figures.bound ? "≤" : "";
  return `p50 ${bound}${latency(figures.p50Ms)} · p99 ${bound}${latency(figures.p99Ms)}`;
}

/** The same for the little room of a label: one unit where both have the same. */
export function briefQuantiles(figures: MergedFigures): string {
  if (figures.p50Ms === null && figures.p99Ms === null) return "no requests";
  const bound = figures.bound ? "≤" : " ";
  const [half, halfUnit] = latency(figures.p50Ms).split(" ");
  const [most, mostUnit] = latency(figures.p99Ms).split(" ");
  return `p50${bound}${half}${halfUnit === mostUnit ? "" : ` ${halfUnit}`} · p99${bound}${most} ${mostUnit}`;
}

export function transportInWords(edge: GraphEdge): string {
  if (edge.mtls === "all") return `mutual TLS${edge.tlsVersion ? ` (${edge.tlsVersion})` : ""}`;
  return edge.mtls === "none" ? "plaintext" : "partly plaintext";
}

function edgeInWords(edge: GraphEdge): string {
  const words = [
    edge.kind === "call" ? `${edge.from} calls ${edge.to}` : `${edge.to} takes ${percent(edge.share)} of ${edge.from}`,
    rate(edge.figures.rps),
    `${percent(edge.figures.successRate)} succeed`,
    quantiles(edge.figures),
    transportInWords(edge),
  ];
  const repeated = repeatsInWords(edge.repeats);
  if (repeated) words.push(repeated);
  for (const [reason, rps] of Object.entries(edge.refusals)) if (rps > 0) words.push(`refused ${rate(rps)}: ${reason}`);
  return words.join(", ");
}

function readiness(node: GraphNode): string {
  if (node.instances > 0) return `${node.ready} of ${node.instances} ready`;
  return node.kind === "service" ? "no workload is selected by it" : "not in the mesh";
}

function neighbours(graph: Graph, id: string): Set<string> {
  const near = new Set([id]);
  for (const edge of graph.edges) {
    if (edge.from === id || edge.to === id) near.add(edge.id).add(edge.from).add(edge.to);
  }
  return near;
}

/** The width of an element's inside; zero until it is known. */
function useWidth(element: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (element.current === null) return;
    const observer = new ResizeObserver(([entry]) => entry && setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return width;
}
