// The graph: splits apart from calls, honest sums, and a shape that figures don't change.
import { describe, expect, test } from "vitest";
import type { MeshEdge, MeshService } from "../api/types";
import { graphOf, merge, signature } from "./graph";

function service(name: string, change: Partial<MeshService> = {}): MeshService {
  return { name: `${name}.demo`, namespace: "demo", kind: "service", instances: 1, ready: 1, inMesh: true, rps: 0, successRate: null, p50Ms: null, p99Ms: null, ...change };
}

function call(from: string, to: string, change: Partial<MeshEdge> = {}): MeshEdge {
  return { from: `${from}.demo`, to: `${to}.demo`, backend: null, rps: 1, successRate: 1, p50Ms: 1, p99Ms: 2, mtls: true, tlsVersion: "TLS 1.3", refusals: {}, ...change };
}

const services = ["cart", "payments", "payments-v1", "payments-v2"].map((name) => service(name));
const canary = [
  call("cart", "payments", { backend: "payments-v1.demo", rps: 18, successRate: 0.9, p50Ms: 4, p99Ms: 200, refusals: { "breaker-open": 0.5 } }),
  call("cart", "payments", { backend: "payments-v2.demo", rps: 2, successRate: 1, p50Ms: 3, p99Ms: 12 }),
];

describe("a canary", () => {
  const graph = graphOf(services, canary);
  const edge = (from: string, to: string) => graph.edges.find(({ id }) => id === `${from}.demo→${to}.demo`);

  test("is one call to the parent and a split to each backend", () => {
    expect(graph.edges.map(({ id, kind }) => [id, kind])).toEqual([
      ["cart.demo→payments.demo", "call"],
      ["payments.demo→payments-v1.demo", "split"],
      ["payments.demo→payments-v2.demo", "split"],
    ]);
  });

  test("adds up rates exactly and bounds the quantiles", () => {
    expect(edge("cart", "payments")?.figures).toEqual({ rps: 20, successRate: (18 * 0.9 + 2) / 20, p50Ms: 4, p99Ms: 200, bound: true });
    expect(edge("payments", "payments-v2")?.figures).toMatchObject({ p99Ms: 12, bound: false });
  });

  test("shows the share of each backend, and refusals where they belong", () => {
    expect(edge("payments", "payments-v1")?.share).toBeCloseTo(0.9);
    expect(edge("payments", "payments-v2")?.share).toBeCloseTo(0.1);
    expect(edge("cart", "payments")?.share).toBeNull();
    expect(edge("cart", "payments")?.refusals).toEqual({ "breaker-open": 0.5 });
    expect(edge("payments", "payments-v2")?.refusals).toEqual({});
  });

  test("gives a parent and its backends the figures of their edges", () => {
    expect(graph.nodes.find(({ name }) => name === "payments-v1")).toMatchObject({ figures: { rps: 18, bound: false }, health: "degraded" });
    expect(graph.nodes.find(({ name }) => name === "payments")?.figures.rps).toBe(20);
  });
});

test("a backend that is the called service itself is no split", () => {
  const graph = graphOf(services, [call("cart", "payments", { backend: "payments.demo" })]);
  expect(graph.edges.map(({ kind }) => kind)).toEqual(["call"]);
});

test("a service's own figures come before those of its edges", () => {
  const graph = graphOf([service("cart", { rps: 7, successRate: 0.5, p99Ms: 3 })], [call("web", "cart", { rps: 9 })]);
  expect(graph.nodes.find(({ name }) => name === "cart")).toMatchObject({ figures: { rps: 7, bound: false }, health: "failing" });
});

test("whom the mesh doesn't list is drawn all the same, as outside of it", () => {
  const graph = graphOf([service("web")], [call("web", "legacy", { mtls: false, tlsVersion: null })]);
  expect(graph.nodes.find(({ name }) => name === "legacy")).toMatchObject({ kind: "unknown", instances: 0 });
  expect(graph.edges[0]).toMatchObject({ mtls: "none", tlsVersion: null });
});

test("what nobody was sent is neither encrypted nor in plaintext", () => {
  const [sent, refused] = [call("web", "cart"), call("web", "cart", { backend: "cart-v2.demo", mtls: null, tlsVersion: null })];
  const mtls = (...rows: MeshEdge[]) => graphOf([service("web"), service("cart")], rows).edges.find(({ kind }) => kind === "call")?.mtls;
  expect([mtls(refused), mtls(sent, refused), mtls({ ...sent, mtls: false }, refused)]).toEqual(["unsent", "all", "none"]);
});

test("what was refused before its destination was known has no place on the map", () => {
  const nobody = { ...service("x"), name: "unknown", namespace: "", kind: "unknown" as const };
  const refused = { ...call("web", "x", { rps: 0, mtls: false, refusals: { "no-target": 0.1 } }), to: "unknown" };
  const graph = graphOf([service("web"), nobody], [refused]);
  expect(graph.nodes.map(({ id }) => id)).toEqual(["web.demo"]);
  expect(graph.edges).toEqual([]);
});

test("an edge that is only partly encrypted says so", () => {
  const rows = [canary[0]!, { ...canary[1]!, mtls: false }];
  expect(graphOf(services, rows).edges.find(({ kind }) => kind === "call")?.mtls).toBe("part");
});

test("the shape depends neither on figures nor on order", () => {
  const busier = canary.map((row) => ({ ...row, rps: row.rps * 3, successRate: 0.1 }));
  expect(signature(graphOf([...services].reverse(), busier.reverse()))).toBe(signature(graphOf(services, canary)));
});

test("merging nothing, or only silence, measures nothing", () => {
  const nothing = { rps: 0, successRate: null, p50Ms: null, p99Ms: null, bound: false };
  expect(merge([])).toEqual(nothing);
  expect(merge([nothing, nothing])).toEqual(nothing);
});
