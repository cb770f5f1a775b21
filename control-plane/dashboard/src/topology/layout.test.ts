// The layout: layers in the direction of calls, nothing overlaps, and the same shape always gives the same picture.
import { describe, expect, test } from "vitest";
import type { MeshEdge, MeshService } from "../api/types";
import { graphOf } from "./graph";
import { LABEL, NODE, type Orientation, type Placed, curve, place } from "./layout";

function rows(...pairs: [string, string, string?][]): MeshEdge[] {
  return pairs.map(([from, to, backend]) => ({
    from: `${from}.demo`, to: `${to}.demo`, backend: backend ? `${backend}.demo` : null, rps: Math.random(), successRate: 1, p50Ms: 1, p99Ms: 2, mtls: true,
  }));
}

const demo = rows(["traffic", "web"], ["web", "catalog"], ["web", "cart"], ["cart", "payments", "payments-v1"], ["cart", "payments", "payments-v2"]);

function service(name: string): MeshService {
  return { name: `${name}.demo`, namespace: "demo", kind: "service", instances: 0, ready: 0, inMesh: false, rps: 0, successRate: null, p50Ms: null, p99Ms: null };
}

function boxes(placed: Placed, orientation: Orientation) {
  const nodes = [...placed.nodes].map(([id, at]) => ({ id, ...at, ...NODE[orientation] }));
  const labels = [...placed.edges].map(([id, { label }]) => ({ id, ...label, ...LABEL }));
  return [...nodes, ...labels];
}

describe.each(["right", "down"] as const)("towards %s", (orientation) => {
  const placed = place(graphOf([], demo), orientation);
  const along = (name: string) => placed.nodes.get(`${name}.demo`)![orientation === "right" ? "x" : "y"];

  test("callers come before callees", () => {
    const order = ["traffic", "web", "cart", "payments", "payments-v1"].map(along);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(new Set(order).size).toBe(5);
    expect(along("cart")).toBe(along("catalog"));
  });

  test.each([0, 1, 11])("no node or label covers another, and all are inside, with %s standing alone", (lonely) => {
    const alone = Array.from({ length: lonely }, (_, index) => service(`alone-${index}`));
    const placed = place(graphOf(alone, demo), orientation);
    expect(placed.nodes.size).toBe(7 + lonely);
    const all = boxes(placed, orientation);
    for (const [index, box] of all.entries()) {
      expect(box.x - box.width / 2, box.id).toBeGreaterThanOrEqual(0);
      expect(box.x + box.width / 2, box.id).toBeLessThanOrEqual(placed.width);
      expect(box.y + box.height / 2, box.id).toBeLessThanOrEqual(placed.height);
      for (const other of all.slice(index + 1)) {
        const apart =
          Math.abs(box.x - other.x) >= (box.width + other.width) / 2 - 0.5 || Math.abs(box.y - other.y) >= (box.height + other.height) / 2 - 0.5;
        expect(apart, `${box.id} and ${other.id}`).toBe(true);
      }
    }
  });

  test("figures and the order of the answer move nothing", () => {
    expect(place(graphOf([], [...demo].reverse().map((row) => ({ ...row, rps: 99 }))), orientation)).toEqual(placed);
  });
});

test("cycles, calls to oneself and lone services are drawn too", () => {
  const placed = place(graphOf([], rows(["a", "b"], ["b", "a"], ["c", "c"])), "right");
  expect(placed.nodes.size).toBe(3);
  for (const [id, { path }] of placed.edges) expect(path, id).toMatch(/^M[-\d.,]+C/);
  expect(path(placed)).not.toContain("NaN");
});

test("services without any call stand in rows, not in one long column", () => {
  const placed = place(graphOf(Array.from({ length: 7 }, (_, index) => service(`s${index}`)), []), "right");
  expect(new Set([...placed.nodes.values()].map(({ y }) => y)).size).toBe(2);
  expect(placed.height).toBeLessThan(300);
});

test("an empty mesh has an empty map", () => {
  const placed = place(graphOf([], []), "right");
  expect([placed.nodes.size, placed.edges.size]).toEqual([0, 0]);
  expect([placed.width, placed.height]).toEqual([0, 0]);
});

test("a path runs along the layers at every point", () => {
  expect(curve([{ x: 0, y: 0 }, { x: 10, y: 20 }], true)).toBe("M0,0C5,0 5,20 10,20");
  expect(curve([{ x: 0, y: 0 }, { x: 10, y: 20 }], false)).toBe("M0,0C0,10 10,10 10,20");
  expect(curve([], true)).toBe("");
});

function path(placed: Placed): string {
  return [...placed.edges.values()].map((edge) => edge.path).join();
}
