// Large meshes: layers by call depth, nothing on top of anything, and the same shape always gives the same picture.
import { describe, expect, test } from "vitest";
import type { MeshEdge } from "../api/types";
import { serviceName } from "../format";
import { CHIP as CHIPS, placeDense } from "./dense";
import { type Graph, graphOf } from "./graph";
import { layersOf } from "./layers";
import { layoutOf } from "./layout";

function calls(...pairs: [string, string][]): Graph {
  return graphOf([], pairs.map(([from, to]): MeshEdge => ({ from, to, backend: null, rps: Math.random(), successRate: 1, p50Ms: 1, p99Ms: 2, mtls: true })));
}

/** Two hundred services in eight namespaces, a thousand calls inwards. */
const large = calls(
  ...Array.from({ length: 1000 }, (_, index): [string, string] => {
    const from = (index * 37) % 150;
    const to = from + 1 + ((index * 53) % 49);
    return [`s${from}.n${from % 8}`, `s${to}.n${to % 8}`];
  }),
);

describe("layers", () => {
  const depth = (graph: Graph, id: string) => layersOf(graph).findIndex((layer) => layer.includes(id));

  test("callers come before callees, by the longest way", () => {
    const graph = calls(["a.x", "b.x"], ["b.x", "c.x"], ["a.x", "c.x"], ["d.x", "c.x"]);
    expect(layersOf(graph)).toEqual([["a.x", "d.x"], ["b.x"], ["c.x"]]);
  });

  test("calls in a circle and to oneself end, too", () => {
    expect(layersOf(calls(["a.x", "b.x"], ["b.x", "c.x"], ["c.x", "a.x"], ["c.x", "c.x"])).flat().sort()).toEqual(["a.x", "b.x", "c.x"]);
    expect(layersOf(calls(["a.x", "a.x"]))).toEqual([]);
  });

  test("a chain that is far too long is as deep as it is near", () => {
    const chain = Array.from({ length: 40 }, (_, index): [string, string] => [`s${index}.x`, `s${index + 1}.x`]);
    const short = Array.from({ length: 40 }, (_, index): [string, string] => ["s0.x", `s${index + 1}.x`]);
    expect(depth(calls(...chain, ...short), "s40.x")).toBe(1);
  });

  test("a namespace's services stand together", () => {
    for (const layer of layersOf(large)) {
      const order = layer.map((id) => serviceName(id).namespace);
      const turns = order.filter((namespace, index) => namespace !== order[index - 1]);
      expect(new Set(turns).size).toBe(turns.length);
    }
  });
});

describe.each(["right", "down"] as const)("towards %s", (orientation) => {
  const placed = placeDense(large, orientation, 2);
  const CHIP = CHIPS[orientation];

  test("every service has a place of its own, inside", () => {
    expect(placed.nodes.size).toBe(large.nodes.length);
    const taken = [...placed.nodes];
    for (const [index, [id, at]] of taken.entries()) {
      expect(at.x - CHIP.width / 2 >= 0 && at.x + CHIP.width / 2 <= placed.width, id).toBe(true);
      expect(at.y - CHIP.height / 2 >= 0 && at.y + CHIP.height / 2 <= placed.height + 0.01, id).toBe(true);
      for (const [other, there] of taken.slice(index + 1)) {
        expect(Math.abs(at.x - there.x) >= CHIP.width || Math.abs(at.y - there.y) >= CHIP.height, `${id} and ${other}`).toBe(true);
      }
    }
  });

  test("no name of a namespace lies on a service", () => {
    expect(placed.heads.length).toBeGreaterThan(7);
    for (const head of placed.heads) {
      for (const at of placed.nodes.values()) {
        const apart = at.y - CHIP.height / 2 >= head.y + 17 || at.y + CHIP.height / 2 <= head.y + 1 || at.x - CHIP.width / 2 > head.x + 100 || at.x + CHIP.width / 2 <= head.x;
        expect(apart).toBe(true);
      }
    }
  });

  test("every service stands beneath its namespace's name", () => {
    expect(placed.heads.flatMap(({ ids }) => ids).sort()).toEqual([...placed.nodes.keys()].sort());
    for (const { namespace, ids } of placed.heads) for (const id of ids) expect(serviceName(id).namespace).toBe(namespace);
  });

  test("every call has a line", () => {
    for (const edge of large.edges) expect(placed.edges.get(edge.id)?.path, edge.id).toMatch(/^M[-\d.,]+C[-\d., ]+$/);
  });

  test("figures move nothing", () => {
    const busier: Graph = { nodes: large.nodes.map((node) => ({ ...node, health: "failing" })), edges: large.edges.map((edge) => ({ ...edge, figures: { ...edge.figures, rps: 99 } })) };
    expect(placeDense(busier, orientation, 2)).toEqual(placed);
  });
});

test("the whole is about as wide as screens are", () => {
  const { width, height } = placeDense(large, "right", 2);
  expect(width / height).toBeGreaterThan(0.6);
  expect(width / height).toBeLessThan(3.2);
});

test("services without any call have places, too", () => {
  const service = (name: string) => ({ name, namespace: "x", kind: "service" as const, instances: 0, ready: 0, inMesh: false, rps: 0, successRate: null, p50Ms: null, p99Ms: null });
  const placed = placeDense(graphOf(Array.from({ length: 60 }, (_, index) => service(`s${index}.x`)), []), "right", 2);
  expect(placed.nodes.size).toBe(60);
  expect(placed.heads).toEqual([]);
});

test("a thousand calls are placed without a pause, even on a busy machine", () => {
  const began = performance.now();
  expect(layoutOf(large, "right", 1200).dense).toBe(true);
  expect(performance.now() - began).toBeLessThan(1_000);
});

test("few services have cards with room for their figures", () => {
  expect(layoutOf(calls(["a.x", "b.x"]), "right", 1200).dense).toBe(false);
});
