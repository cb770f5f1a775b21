// Where each service of a large mesh goes: small boxes in layers from left to right (downwards on narrow screens), those of a
// namespace together under its name. Depends on the graph's shape only, so numbers that change move nothing.
import { serviceName } from "../format";
import type { Graph } from "./graph";
import { layersOf } from "./layers";
import type { Orientation, Placed, Point } from "./layout";

export const CHIP = { right: { width: 172, height: 26 }, down: { width: 150, height: 28 } } as const;
/** Between boxes of a column, columns of a layer, and layers. */
const GAP = 5;
export const COLUMN_GAP = 12;
const LAYER_GAP = { right: 84, down: 46 } as const;
/** A namespace's name above its services. */
export const HEAD = 19;
const MARGIN = 10;
/** Width to height: as screens have it, or higher, as what is wider than the window is harder to find than what is below. */
const ASPECT = 1.4;

/** A namespace's name above its services. */
export interface Head {
  namespace: string;
  /** The services beneath it. */
  ids: string[];
  x: number;
  y: number;
}

type Item = { id: string } | { namespace: string; ids: string[] };

export function placeDense(graph: Graph, orientation: Orientation, across: number): Placed {
  const namespaces = new Set(graph.nodes.map(({ namespace }) => namespace));
  const layers = layersOf(graph);
  const linked = new Set(layers.flat());
  const alone = graph.nodes.map(({ id }) => id).filter((id) => !linked.has(id));
  if (alone.length > 0) layers.push(alone);
  const grouped = layers.map((layer) => groups(layer, namespaces.size > 1));
  const placed = orientation === "right" ? inColumns(grouped) : inBands(grouped, across);
  const edges = new Map(
    graph.edges.map((edge) => {
      const [from, to] = [placed.nodes.get(edge.from)!, placed.nodes.get(edge.to)!];
      return [edge.id, { path: way(from, to, orientation), label: { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 } }];
    }),
  );
  return { ...placed, edges, box: CHIP[orientation], dense: true };
}

/** Services by namespace, in the layer's order. */
function groups(layer: readonly string[], headed: boolean): { namespace: string | null; ids: string[] }[] {
  const found: { namespace: string | null; ids: string[] }[] = [];
  for (const id of layer) {
    const namespace = headed ? serviceName(id).namespace : null;
    const last = found.at(-1);
    if (last !== undefined && last.namespace === namespace) last.ids.push(id);
    else found.push({ namespace, ids: [id] });
  }
  return found;
}

type Groups = ReturnType<typeof groups>[];
type Places = Pick<Placed, "width" | "height" | "nodes" | "heads">;

/** Layers beside each other, long ones in several columns: as many as make the whole about as wide as screens are. */
function inColumns(layers: Groups): Places {
  const box = CHIP.right;
  const heights = (columns: Item[][]) => columns.map((column) => column.reduce((sum, item) => sum + ("id" in item ? box.height + GAP : HEAD), -GAP));
  const cut = (most: number) => layers.map((layer) => columnsOf(layer, most));
  const sizeOf = (cut: Item[][][]) => ({
    width: cut.reduce((sum, columns) => sum + columns.length * (box.width + COLUMN_GAP) - COLUMN_GAP + LAYER_GAP.right, -LAYER_GAP.right) + 2 * MARGIN,
    height: Math.max(0, ...cut.flatMap(heights)) + 2 * MARGIN,
  });
  const longest = Math.max(1, ...layers.map((layer) => layer.reduce((sum, { ids }) => sum + ids.length + 1, 0)));
  let most = 6;
  while (most < longest && sizeOf(cut(most * (box.height + GAP))).width > ASPECT * sizeOf(cut(most * (box.height + GAP))).height) most += 1;
  const chosen = layers.map((layer) => balanced(layer, most * (box.height + GAP)));
  const { width, height } = sizeOf(chosen);
  const nodes = new Map<string, Point>();
  const heads: Head[] = [];
  let left = MARGIN;
  for (const columns of chosen) {
    const tallest = Math.max(0, ...heights(columns));
    for (const column of columns) {
      let top = MARGIN + (height - 2 * MARGIN - tallest) / 2;
      for (const item of column) {
        if ("id" in item) {
          nodes.set(item.id, { x: left + box.width / 2, y: top + box.height / 2 });
          top += box.height + GAP;
        } else {
          heads.push({ ...item, x: left, y: top });
          top += HEAD;
        }
      }
      left += box.width + COLUMN_GAP;
    }
    left += LAYER_GAP.right - COLUMN_GAP;
  }
  return { width, height, nodes, heads };
}

/** In as few columns as that height allows, all about as high as each other. */
function balanced(layer: Groups[number], most: number): Item[][] {
  const columns = columnsOf(layer, most);
  let height = most / columns.length;
  for (;;) {
    const even = columnsOf(layer, height);
    if (even.length <= columns.length || height >= most) return even;
    height += HEAD;
  }
}

/** A layer's services cut into columns of at most that height; a group that goes on in the next has its name there, too. */
function columnsOf(layer: Groups[number], most: number): Item[][] {
  const columns: Item[][] = [];
  let height = Infinity;
  for (const { namespace, ids } of layer) {
    let beneath: string[] = [];
    for (const [index, id] of ids.entries()) {
      const head = namespace !== null && index === 0 ? HEAD : 0;
      const full = height + head + CHIP.right.height > most;
      if (full) {
        columns.push([]);
        height = 0;
      }
      if (namespace !== null && (full || head > 0)) {
        beneath = [];
        columns.at(-1)!.push({ namespace, ids: beneath });
        height += HEAD;
      }
      columns.at(-1)!.push({ id });
      beneath.push(id);
      height += CHIP.right.height + GAP;
    }
  }
  return columns;
}

/** Layers under each other, so many services across. */
function inBands(layers: Groups, across: number): Places {
  const box = CHIP.down;
  const nodes = new Map<string, Point>();
  const heads: Head[] = [];
  const columns = Math.max(1, across);
  let top = MARGIN;
  for (const layer of layers) {
    for (const { namespace, ids } of layer) {
      if (namespace !== null) {
        heads.push({ namespace, ids, x: MARGIN, y: top });
        top += HEAD;
      }
      for (const [index, id] of ids.entries()) {
        const [row, column] = [Math.floor(index / columns), index % columns];
        nodes.set(id, { x: MARGIN + column * (box.width + COLUMN_GAP) + box.width / 2, y: top + row * (box.height + GAP) + box.height / 2 });
      }
      top += Math.ceil(ids.length / columns) * (box.height + GAP);
    }
    top += LAYER_GAP.down - GAP;
  }
  const width = 2 * MARGIN + columns * (box.width + COLUMN_GAP) - COLUMN_GAP;
  return { width, height: top - LAYER_GAP.down + MARGIN, nodes, heads };
}

/** Out of the side that faces the layers to come, into the other one; round the side within a layer. */
function way(from: Point, to: Point, orientation: Orientation): string {
  const right = orientation === "right";
  const half = (right ? CHIP.right.width : CHIP.down.height) / 2;
  const [along, beside] = right ? (["x", "y"] as const) : (["y", "x"] as const);
  const direction = to[along] - from[along] >= 2 * half ? 1 : from[along] - to[along] >= 2 * half ? -1 : 0;
  const start = from[along] + (direction === 0 ? half : direction * half);
  const end = to[along] + (direction === 0 ? half : -direction * half);
  const bend = direction === 0 ? Math.max(start, end) + 22 : (start + end) / 2;
  const at = (one: number, other: number) => (right ? `${round(one)},${round(other)}` : `${round(other)},${round(one)}`);
  return `M${at(start, from[beside])}C${at(bend, from[beside])} ${at(bend, to[beside])} ${at(end, to[beside])}`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
