// Filters: what has a place depends on names only; health only hides, and a search only lights.
import { describe, expect, test } from "vitest";
import type { MeshEdge, MeshService } from "../api/types";
import { WHOLE_MESH } from "../route";
import { listed, matches, namespacesOf, neighbours, shownOf } from "./filter";
import { graphOf } from "./graph";

function call(from: string, to: string, successRate = 1): MeshEdge {
  return { from, to, backend: null, rps: 1, successRate, p50Ms: 1, p99Ms: 2, mtls: true };
}

function service(name: string, change: Partial<MeshService> = {}): MeshService {
  return { name, namespace: name.split(".")[1]!, kind: "service", instances: 1, ready: 1, inMesh: true, rps: 1, successRate: 1, p50Ms: 1, p99Ms: 2, ...change };
}

const graph = graphOf(
  ["web.shop", "cart.shop", "pay.money", "pay-v2.money", "mail.ops"].map((name) => service(name, name === "mail.ops" ? { ready: 0 } : {})),
  [call("web.shop", "cart.shop"), call("cart.shop", "pay.money", 0.5), call("pay.money", "pay-v2.money"), call("web.shop", "mail.ops")],
);
const ids = ({ nodes, edges }: typeof graph) => [...nodes, ...edges].map(({ id }) => id).sort();

test("without filters all has a place, nothing is hidden and nothing stands out", () => {
  expect(shownOf(graph, WHOLE_MESH)).toEqual({ graph, hidden: new Set(), lit: null });
});

test("a namespace has its own services and what goes between them", () => {
  const { graph: of } = shownOf(graph, { ...WHOLE_MESH, namespace: "shop" });
  expect(ids(of)).toEqual(["cart.shop", "web.shop", "web.shop→cart.shop"]);
  expect(namespacesOf(graph)).toEqual(["money", "ops", "shop"]);
});

test("an isolated service has its neighbours around it; one that is not there isolates nothing", () => {
  const { graph: of, lit } = shownOf(graph, { ...WHOLE_MESH, focus: "pay.money", isolated: true });
  expect(ids(of)).toEqual(["cart.shop", "cart.shop→pay.money", "pay-v2.money", "pay.money", "pay.money→pay-v2.money"]);
  expect(lit).toBeNull();
  expect(shownOf(graph, { ...WHOLE_MESH, focus: "gone.shop", isolated: true }).graph).toBe(graph);
});

describe("only what is unhealthy", () => {
  const shown = shownOf(graph, { ...WHOLE_MESH, onlyUnhealthy: true });

  test("keeps what fails, and both ends of an edge that does", () => {
    expect(ids(listed(shown))).toEqual(["cart.shop", "cart.shop→pay.money", "mail.ops", "pay.money"]);
  });

  test("moves nothing: all keep their places", () => {
    expect(shown.graph).toBe(graph);
    expect(shown.hidden.has("web.shop")).toBe(true);
  });
});

describe("a search", () => {
  test("finds by name, the best first, and by namespace", () => {
    const found = (text: string) => matches(graph.nodes, text).map(({ id }) => id);
    expect(found("pay")).toEqual(["pay.money", "pay-v2.money"]);
    expect(found(" AIL ")).toEqual(["mail.ops"]);
    expect(found("money")).toEqual(["pay.money", "pay-v2.money"]);
    expect([found(""), found("nothing")]).toEqual([[], []]);
  });

  test("lights what it finds, and what goes between", () => {
    expect(shownOf(graph, { ...WHOLE_MESH, search: "pay" }).lit).toEqual(new Set(["pay.money", "pay-v2.money", "pay.money→pay-v2.money"]));
  });
});

test("what is looked at stands out with its neighbours", () => {
  expect(shownOf(graph, { ...WHOLE_MESH, focus: "web.shop" }).lit).toEqual(neighbours(graph, "web.shop"));
  expect(neighbours(graph, "web.shop")).toEqual(new Set(["web.shop", "cart.shop", "mail.ops", "web.shop→cart.shop", "web.shop→mail.ops"]));
});
