// How deep in the calls each service is, and in which order a layer's services stand: by names and calls only.
import { serviceName } from "../format";
import type { Graph } from "./graph";

/** Deeper than this, how soon something can be reached says more than how late. */
const DEEPEST = 12;
/** Passes over the layers, each way. */
const SWEEPS = 6;

/** Callers before callees: layers from the mesh's entrances on, without those that nobody calls and that call nobody. */
export function layersOf(graph: Graph): string[][] {
  const calls = graph.edges.filter(({ from, to }) => from !== to);
  const linked = new Set(calls.flatMap(({ from, to }) => [from, to]));
  const ids = graph.nodes.map(({ id }) => id).filter((id) => linked.has(id));
  const out = new Map<string, string[]>(ids.map((id) => [id, []]));
  for (const { from, to } of calls) out.get(from)?.push(to);
  const called = new Set(calls.map(({ to }) => to));
  const roots = ids.filter((id) => !called.has(id));

  const longest = depths(ids, roots, out);
  const deepest = Math.max(0, ...longest.values());
  const depth = deepest < DEEPEST ? longest : distances(ids, roots, out);
  const layers: string[][] = [];
  for (const id of ids) (layers[depth.get(id) ?? 0] ??= []).push(id);
  const order = layers.filter((layer) => layer !== undefined && layer.length > 0);
  return untangled(order, calls);
}

/** The longest way from an entrance, once calls that close a circle are left out. */
function depths(ids: readonly string[], roots: readonly string[], out: ReadonlyMap<string, readonly string[]>): Map<string, number> {
  const done: string[] = [];
  const state = new Map<string, "open" | "done">();
  const back = new Set<string>();
  for (const start of [...roots, ...ids]) {
    if (state.has(start)) continue;
    // Depth first, without recursion: a long chain of calls is no reason to overflow.
    const stack: { id: string; next: number }[] = [{ id: start, next: 0 }];
    state.set(start, "open");
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      const to = out.get(top.id)?.[top.next++];
      if (to === undefined) {
        state.set(top.id, "done");
        done.push(top.id);
        stack.pop();
      } else if (state.get(to) === "open") back.add(`${top.id}→${to}`);
      else if (!state.has(to)) {
        state.set(to, "open");
        stack.push({ id: to, next: 0 });
      }
    }
  }
  const depth = new Map<string, number>(ids.map((id) => [id, 0]));
  for (const id of done.reverse()) {
    for (const to of out.get(id) ?? []) {
      if (!back.has(`${id}→${to}`)) depth.set(to, Math.max(depth.get(to)!, depth.get(id)! + 1));
    }
  }
  return depth;
}

/** The shortest way from an entrance; of a circle without one, from the first of its names. */
function distances(ids: readonly string[], roots: readonly string[], out: ReadonlyMap<string, readonly string[]>): Map<string, number> {
  const depth = new Map<string, number>();
  const queue = [...roots];
  for (const id of roots) depth.set(id, 0);
  let rest = 0;
  for (;;) {
    for (let at = 0; at < queue.length; at++) {
      for (const to of out.get(queue[at]!) ?? []) {
        if (depth.has(to)) continue;
        depth.set(to, depth.get(queue[at]!)! + 1);
        queue.push(to);
      }
    }
    queue.length = 0;
    while (rest < ids.length && depth.has(ids[rest]!)) rest += 1;
    if (rest === ids.length) return depth;
    depth.set(ids[rest]!, 0);
    queue.push(ids[rest]!);
  }
}

/** Each layer ordered by where its neighbours stand, namespaces kept together. */
function untangled(layers: string[][], calls: readonly { from: string; to: string }[]): string[][] {
  const before = new Map<string, string[]>();
  const after = new Map<string, string[]>();
  for (const { from, to } of calls) {
    (after.get(from) ?? after.set(from, []).get(from)!).push(to);
    (before.get(to) ?? before.set(to, []).get(to)!).push(from);
  }
  const place = new Map<string, number>();
  const settle = (layer: readonly string[]) => layer.forEach((id, index) => place.set(id, (index + 0.5) / layer.length));
  layers.forEach(settle);
  const sweep = (layer: string[], near: ReadonlyMap<string, readonly string[]>): string[] => {
    const wish = new Map(layer.map((id) => [id, mean((near.get(id) ?? []).map((other) => place.get(other)!)) ?? place.get(id)!]));
    const groups = new Map<string, string[]>();
    for (const id of layer) {
      const { namespace } = serviceName(id);
      (groups.get(namespace) ?? groups.set(namespace, []).get(namespace)!).push(id);
    }
    const byWish = (a: number, b: number, one: string, other: string) => a - b || (one < other ? -1 : 1);
    return [...groups]
      .map(([namespace, ids]) => ({ namespace, ids, wish: mean(ids.map((id) => wish.get(id)!))! }))
      .sort((a, b) => byWish(a.wish, b.wish, a.namespace, b.namespace))
      .flatMap(({ ids }) => ids.sort((a, b) => byWish(wish.get(a)!, wish.get(b)!, a, b)));
  };
  let ordered = layers;
  for (let pass = 0; pass < SWEEPS; pass++) {
    const forwards = pass % 2 === 0;
    const next = [...ordered];
    for (let step = 1; step < next.length; step++) {
      const at = forwards ? step : next.length - 1 - step;
      next[at] = sweep([...next[at]!], forwards ? before : after);
      settle(next[at]!);
    }
    ordered = next;
  }
  return ordered;
}

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}
