// The map's services: cards with all figures where there are few, small boxes where there are many. Each is a link to its page.
import { FaultMark } from "../components/faults";
import { HealthShape } from "../components/icons";
import { Sparkline } from "../components/parts";
import { latency, percent, rate } from "../format";
import { serviceHref } from "../route";
import type { GraphNode } from "./graph";
import type { Placed } from "./layout";

export interface NodeProps {
  node: GraphNode;
  placed: Placed;
  rates: readonly number[];
  faulty: boolean;
  faded: boolean;
  /** The one that the keyboard is at. */
  current: boolean;
  /** Of its namespace, where there are several. */
  hue: number | null;
}

export function Node(props: NodeProps) {
  const { node, placed, faded, current, hue } = props;
  const at = placed.nodes.get(node.id);
  if (at === undefined) return null;
  const { width, height } = placed.box;
  const transform = `translate(${at.x - width / 2}px, ${at.y - height / 2}px)`;
  const classes = ["node", node.health, placed.dense && "chip", faded && "faded", hue !== null && `namespace-${hue}`].filter(Boolean).join(" ");
  return (
    <li class={classes} style={{ transform, width: `${width}px`, height: `${height}px` }}>
      <a href={serviceHref(node.id)} data-node={node.id} tabIndex={current ? 0 : -1} draggable={false} title={placed.dense ? tip(node) : undefined}>
        {placed.dense ? <Chip {...props} /> : <Card {...props} />}
      </a>
    </li>
  );
}

/** What it is called for those who hear it, and whether somebody calls it. */
function Unseen({ node }: { node: GraphNode }) {
  return <span class="unseen">{` in ${node.namespace}, ${node.word},`}</span>;
}

function isSource(node: GraphNode): boolean {
  return node.figures.rps <= 0 && node.sendsRps > 0;
}

function Chip({ node, faulty }: NodeProps) {
  return (
    <>
      <HealthShape health={node.health} />
      <strong>{node.name}</strong>
      <Unseen node={node} />
      {faulty && <span class="fault-dot" title="faults injected" />}
      <span class="rps">{rate(isSource(node) ? node.sendsRps : node.figures.rps).replace(" rps", "")}</span>
      <span class="unseen"> requests per second{faulty && ", faults injected"}</span>
    </>
  );
}

function tip(node: GraphNode): string {
  const bound = node.figures.bound ? "≤" : "";
  const figures = isSource(node)
    ? `${rate(node.sendsRps)} sent, none received`
    : `${rate(node.figures.rps)}, ${percent(node.figures.successRate)} succeed, p99 ${bound}${latency(node.figures.p99Ms)}`;
  return `${node.id}: ${node.word}\n${figures}\n${readiness(node)}`;
}

function Card({ node, placed, rates, faulty, hue }: NodeProps) {
  const source = isSource(node);
  return (
    <>
      {hue !== null && (
        <span class="of-namespace" aria-hidden="true">
          {node.namespace}
        </span>
      )}
      <span class="name">
        <HealthShape health={node.health} />
        <strong title={node.id}>{node.name}</strong>
        <Unseen node={node} />
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
      <Sparkline values={rates} width={placed.box.width - 28} height={16} />
      {faulty && <FaultMark />}
    </>
  );
}

function readiness(node: GraphNode): string {
  if (node.instances > 0) return `${node.ready} of ${node.instances} ready`;
  return node.kind === "service" ? "no workload is selected by it" : "not in the mesh";
}
