// Where each node and edge of the map goes: layers, left to right, or top to bottom on narrow screens. Few services are arranged
// by dagre, with room for every edge's figures; many are small boxes. Depends on the graph's shape only, so numbers that change
// move nothing.
import { Graph as Dagre, layout as arrange } from "@dagrejs/dagre";
import { CHIP, COLUMN_GAP, type Head, placeDense } from "./dense";
import type { Graph } from "./graph";

export type Orientation = "right" | "down";

/** Wide and tall enough for the widest figures in a wide font, whatever they are just now. */
export const NODE = { right: { width: 164, height: 102 }, down: { width: 148, height: 102 } } as const;
export const LABEL = { width: 146, height: 38 } as const;

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
  /** Of each node. */
  box: { width: number; height: number };
  /** Names of namespaces above their services, where there are several. */
  heads: Head[];
  /** Many services: small boxes, and figures of an edge only where somebody looks. */
  dense: boolean;
}

/** More than this are placed as small boxes. */
const MOST_NODES = 28;
const MOST_EDGES = 40;

/** `width`: of what it is shown in. */
export function layoutOf(graph: Graph, orientation: Orientation, width: number): Placed {
  if (graph.nodes.length <= MOST_NODES && graph.edges.length <= MOST_EDGES) return place(graph, orientation);
  return placeDense(graph, orientation, Math.max(2, Math.floor((width - 48 + COLUMN_GAP) / (CHIP.down.width + COLUMN_GAP))));
}

const MARGIN = 6;
/** Between those that stand alone, and how many of them make a row at least. */
const ROW_GAP = 24;
const ROW_LEAST = { right: 5, down: 2 } as const;

export function place(graph: Graph, orientation: Orientation): Placed {
  // Of nothing, dagre makes a picture of infinite size.
  const box = NODE[orientation];
  const fixed = { box, heads: [], dense: false };
  if (graph.nodes.length === 0) return { width: 0, height: 0, nodes: new Map(), edges: new Map(), ...fixed };
  const dagre = new Dagre();
  const right = orientation === "right";
  dagre.setGraph({
    rankdir: right ? "LR" : "TB",
    // A label is a rank of its own between two layers, with this much on either side.
    ranksep: right ? 28 : 24,
    nodesep: right ? 28 : 8,
    edgesep: 8,
    marginx: MARGIN,
    marginy: MARGIN,
  });
  const linked = new Set(graph.edges.flatMap((edge) => [edge.from, edge.to]));
  for (const id of linked) dagre.setNode(id, { ...box });
  // A route's own split is what a layer most belongs to: keep it short and straight.
  for (const edge of graph.edges) {
    dagre.setEdge(edge.from, edge.to, { ...LABEL, labelpos: "c", weight: edge.kind === "split" ? 3 : 1 });
  }
  arrange(dagre);

  const nodes = new Map([...linked].map((id) => [id, point(dagre.node(id))]));
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
          : curve([side(from, to, box, right), ...points.slice(1, -1), side(to, from, box, right)], right);
      return [edge.id, { path, label }];
    }),
  );
  const size = dagre.graph();
  const drawn = linked.size > 0 ? { width: Math.ceil(size.width ?? 0), height: Math.ceil(size.height ?? 0) } : { width: 0, height: 0 };
  const alone = graph.nodes.map(({ id }) => id).filter((id) => !linked.has(id));
  return { ...inRows(alone, orientation, drawn, nodes), nodes, edges, ...fixed };
}

/** Puts those that nobody calls and that call nobody in rows beneath the others; gives the size of the whole. */
function inRows(ids: string[], orientation: Orientation, drawn: { width: number; height: number }, nodes: Map<string, Point>) {
  if (ids.length === 0) return drawn;
  const box = NODE[orientation];
  const [stepX, stepY] = [box.width + ROW_GAP, box.height + ROW_GAP];
  const columns = Math.max(ROW_LEAST[orientation], Math.floor((drawn.width - 2 * MARGIN + ROW_GAP) / stepX));
  const top = drawn.height === 0 ? MARGIN : drawn.height + ROW_GAP;
  for (const [index, id] of ids.entries()) {
    const [row, column] = [Math.floor(index / columns), index % columns];
    nodes.set(id, { x: MARGIN + box.width / 2 + column * stepX, y: top + box.height / 2 + row * stepY });
  }
  const rows = Math.ceil(ids.length / columns);
  return {
    width: Math.max(drawn.width, 2 * MARGIN + Math.min(columns, ids.length) * stepX - ROW_GAP),
    height: top + rows * stepY - ROW_GAP + MARGIN,
  };
}

function point({ x, y }: { x?: number; y?: number }): Point {
  return { x: x ?? 0, y: y ?? 0 };
}

/** The middle of the side of `node` that faces `other` along the layers. */
function side(node: Point, other: Point, box: { width: number; height: number }, right: boolean): Point {
  return right
    ? { x: node.x + (Math.sign(other.x - node.x) * box.width) / 2, y: node.y }
    : { x: node.x, y: node.y + (Math.sign(other.y - node.y) * box.height) / 2 };
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
