// Where each node and edge of the map goes: layers by dagre, left to right, or top to bottom on narrow screens. Depends
// on the graph's shape only, so numbers that change move nothing.
import { Graph as Dagre, layout as arrange } from "@dagrejs/dagre";
import type { Graph } from "./graph";

export type Orientation = "right" | "down";

export const NODE = { width: 172, height: 88 } as const;
export const LABEL = { width: 136, height: 38 } as const;

export interface Point {
  x: number;
  y: number;
}

export interface Placed {
  width: number;
  height: number;
  /** Centres. */
  nodes: Map<string, Point>;
  edges: Map<string, { path: string; label: Point }>;
}

const MARGIN = 6;

export function place(graph: Graph, orientation: Orientation): Placed {
  const dagre = new Dagre();
  const right = orientation === "right";
  dagre.setGraph({
    rankdir: right ? "LR" : "TB",
    // A label is a rank of its own between two layers, with this much on either side.
    ranksep: right ? 16 : 12,
    nodesep: right ? 30 : 14,
    edgesep: 12,
    marginx: MARGIN,
    marginy: MARGIN,
  });
  for (const node of graph.nodes) dagre.setNode(node.id, { ...NODE });
  // A route's own split is what a layer most belongs to: keep it short and straight.
  for (const edge of graph.edges) {
    dagre.setEdge(edge.from, edge.to, { ...LABEL, labelpos: "c", weight: edge.kind === "split" ? 3 : 1 });
  }
  arrange(dagre);

  const nodes = new Map(graph.nodes.map(({ id }) => [id, point(dagre.node(id))]));
  const edges = new Map(
    graph.edges.map((edge) => {
      const placed = dagre.edge(edge.from, edge.to);
      const label = point(placed);
      const from = nodes.get(edge.from)!;
      const to = nodes.get(edge.to)!;
      const points = (placed.points ?? []).map(point);
      // All edges of a side meet in its middle; a call to itself goes round as dagre has it.
      const path =
        edge.from === edge.to
          ? curve(points, right)
          : curve([side(from, to, right), ...points.slice(1, -1), side(to, from, right)], right);
      return [edge.id, { path, label }];
    }),
  );
  const size = dagre.graph();
  return { width: Math.ceil(size.width ?? 0), height: Math.ceil(size.height ?? 0), nodes, edges };
}

function point({ x, y }: { x?: number; y?: number }): Point {
  return { x: x ?? 0, y: y ?? 0 };
}

/** The middle of the side of `node` that faces `other` along the layers. */
function side(node: Point, other: Point, right: boolean): Point {
  return right
    ? { x: node.x + (Math.sign(other.x - node.x) * NODE.width) / 2, y: node.y }
    : { x: node.x, y: node.y + (Math.sign(other.y - node.y) * NODE.height) / 2 };
}

/** A smooth path that runs along the layers' direction at every given point. */
export function curve(points: Point[], right: boolean): string {
  const [first, ...rest] = points;
  if (first === undefined) return "";
  let path = `M${round(first.x)},${round(first.y)}`;
  let last = first;
  for (const next of rest) {
    const [middleX, middleY] = [(last.x + next.x) / 2, (last.y + next.y) / 2];
    path += right
      ? `C${round(middleX)},${round(last.y)} ${round(middleX)},${round(next.y)} ${round(next.x)},${round(next.y)}`
      : `C${round(last.x)},${round(middleY)} ${round(next.x)},${round(middleY)} ${round(next.x)},${round(next.y)}`;
    last = next;
  }
  return path;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
