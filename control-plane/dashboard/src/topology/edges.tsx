// The map's lines: each with its figures where there are few, else bundled by health and weight, with those that somebody looks at
// drawn one by one on top.
import { useMemo } from "preact/hooks";
import { repeatsInWords } from "../activity";
import { LockPaths, UnlockedPaths } from "../components/icons";
import { percent, rate } from "../format";
import { HEALTH_WORDS, type Health } from "../health";
import { edgeHref, serviceHref } from "../route";
import type { Graph, GraphEdge } from "./graph";
import { LABEL, type Placed } from "./layout";
import { briefQuantiles, quantiles, transportInWords } from "./words";

export interface EdgesProps {
  graph: Graph;
  placed: Placed;
  hidden: ReadonlySet<string>;
  /** Those that stand out; `null`: none does. */
  lit: ReadonlySet<string> | null;
  /** Layers go down the page: there is no room for a thousand lines, so only those that stand out are drawn. */
  down: boolean;
}

const HEALTHS = Object.keys(HEALTH_WORDS) as Health[];

export function Edges({ graph, placed, hidden, lit, down }: EdgesProps) {
  const busiest = Math.max(...graph.edges.map((edge) => edge.figures.rps), 1);
  const shown = hidden.size === 0 ? graph.edges : graph.edges.filter(({ id }) => !hidden.has(id));
  return (
    <svg width={placed.width} height={placed.height} class="edges" role="group" aria-label="Calls between services">
      <defs>
        {HEALTHS.map((health) => (
          <marker key={health} id={`arrow-${health}`} class={health} viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">
            <path d="M0.5 0.5L7.5 4L0.5 7.5z" fill="var(--tone)" />
          </marker>
        ))}
      </defs>
      {placed.dense ? (
        <>
          {!down && <Bundles edges={shown} placed={placed} busiest={busiest} faded={lit !== null} />}
          {lit !== null && <Lit edges={shown.filter(({ id }) => lit.has(id))} placed={placed} busiest={busiest} />}
        </>
      ) : (
        <>
          {/* All lines before all labels, so that none lies over another's figures. */}
          <g aria-hidden="true">
            {shown.map((edge) => (
              <path
                key={edge.id}
                d={placed.edges.get(edge.id)?.path}
                class={`way ${edge.health} ${lit !== null && !lit.has(edge.id) ? "faded" : ""}`}
                stroke-width={1.25 + 3.25 * weight(edge, busiest)}
                marker-end={`url(#arrow-${edge.health})`}
              />
            ))}
          </g>
          {shown.map((edge) => (
            <Edge key={edge.id} edge={edge} placed={placed} faded={lit !== null && !lit.has(edge.id)} />
          ))}
        </>
      )}
    </svg>
  );
}

/** The square root keeps a busy edge from hiding what the quiet ones are. */
function weight(edge: GraphEdge, busiest: number): number {
  return edge.figures.rps > 0 ? Math.sqrt(edge.figures.rps / busiest) : 0;
}

const WEIGHTS = 4;

/** All lines as few paths: a thousand of them are drawn anew only if one changes its health or weight. */
function Bundles({ edges, placed, busiest, faded }: { edges: readonly GraphEdge[]; placed: Placed; busiest: number; faded: boolean }) {
  const step = (edge: GraphEdge) => Math.min(WEIGHTS - 1, Math.floor(weight(edge, busiest) * WEIGHTS));
  const kinds = edges.map((edge) => `${HEALTHS.indexOf(edge.health)}${step(edge)}`);
  const key = `${edges.map(({ id }) => id).join()} ${kinds.join("")}`;
  const paths = useMemo(() => {
    const bundles = new Map<string, { health: Health; step: number; path: string }>();
    for (const [index, edge] of edges.entries()) {
      const kind = kinds[index]!;
      const bundle = bundles.get(kind) ?? { health: edge.health, step: step(edge), path: "" };
      bundle.path += placed.edges.get(edge.id)?.path ?? "";
      bundles.set(kind, bundle);
    }
    // What needs attention lies on top.
    const order: Record<Health, number> = { idle: 0, good: 1, degraded: 2, failing: 3 };
    return [...bundles.values()]
      .sort((a, b) => order[a.health] - order[b.health] || a.step - b.step)
      .map(({ health, step, path }) => <path key={`${health}${step}`} d={path} class={`bundle ${health}`} stroke-width={0.8 + step * 0.8} />);
  }, [key, placed]);
  return (
    <g class={faded ? "bundles faded" : "bundles"} aria-hidden="true">
      {paths}
    </g>
  );
}

/** More than this are drawn as few paths, too: nobody reads them one by one. */
const MOST_LIT = 80;

function Lit({ edges, placed, busiest }: { edges: readonly GraphEdge[]; placed: Placed; busiest: number }) {
  if (edges.length > MOST_LIT) return <Bundles edges={edges} placed={placed} busiest={busiest} faded={false} />;
  return edges.map((edge) => <Bare key={edge.id} edge={edge} placed={placed} busiest={busiest} />);
}

/** One line of many, with its figures for those who point at it. */
function Bare({ edge, placed, busiest }: { edge: GraphEdge; placed: Placed; busiest: number }) {
  const at = placed.edges.get(edge.id);
  if (at === undefined) return null;
  return (
    <a href={hrefOf(edge)} tabIndex={-1}>
      <g class={`edge bare ${edge.kind} ${edge.health}`} role="img" aria-label={edgeInWords(edge)} data-edge={edge.id}>
        <title>{edgeInWords(edge)}</title>
        <path d={at.path} class="touch" />
        <path d={at.path} class="line" stroke-width={1.4 + weight(edge, busiest) * 2.6} marker-end={`url(#arrow-${edge.health})`} />
      </g>
    </a>
  );
}

/** A call's figures, on its line. */
function Edge({ edge, placed, faded }: { edge: GraphEdge; placed: Placed; faded: boolean }) {
  const at = placed.edges.get(edge.id);
  if (at === undefined) return null;
  const left = at.label.x - LABEL.width / 2;
  const top = at.label.y - LABEL.height / 2;
  const plain = edge.mtls === "none" || edge.mtls === "part";
  return (
    <a href={hrefOf(edge)} tabIndex={-1} draggable={false}>
      <g
        class={`edge ${edge.kind} ${edge.health} ${plain ? "plaintext" : edge.mtls === "all" ? "secured" : ""} ${faded ? "faded" : ""}`}
        role="img"
        aria-label={edgeInWords(edge)}
        data-edge={edge.id}
        data-mtls={edge.mtls}
        data-rps={edge.figures.rps.toFixed(2)}
      >
        <title>{edgeInWords(edge)}</title>
        <path d={at.path} class="touch" />
        <rect x={left} y={top} width={LABEL.width} height={LABEL.height} rx="7" class="label" />
        <g transform={`translate(${left + 8},${top + 4.5})`} class="glyph">
          {plain ? <UnlockedPaths /> : edge.mtls === "all" && <LockPaths />}
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
    </a>
  );
}

/** A call has a page; a split is a part of several calls, and belongs to the service that gets it. */
function hrefOf(edge: GraphEdge): string {
  return edge.kind === "call" ? edgeHref(edge.from, edge.to) : serviceHref(edge.to);
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
  for (const [reason, rps] of Object.entries(edge.refusalsByCallee)) if (rps > 0) words.push(`refused there ${rate(rps)}: ${reason}`);
  return words.join(", ");
}
