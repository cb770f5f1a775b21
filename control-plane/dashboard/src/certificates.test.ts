// From when certificates are warned of, in which order they stand, and which edges count as open.
import { expect, test } from "vitest";
import type { MeshEdge, MeshService, Workload } from "./api/types";
import { BACKDATED_MS, DAY_MS, anchorHealth, leafHealth, lifeOf, openEdges, remaining, short, soonestFirst } from "./certificates";

test.each([
  [90, 8, "good"],
  [90, 7, "degraded"],
  [90, 1, "failing"],
  [90, 0, "failing"],
  // Of a day's life a third is eight hours.
  [1, 0.34, "good"],
  [1, 0.33, "degraded"],
  [1, 0.1, "failing"],
  [1, -1, "failing"],
] as const)("of %s days' life %s left is %s", (life, left, health) => expect(leafHealth(left * DAY_MS, life * DAY_MS)).toBe(health));

test.each([
  [31, "good"],
  [30, "degraded"],
  [7, "failing"],
  [-1, "failing"],
] as const)("a root with %s days left is %s", (days, health) => expect(anchorHealth(days * DAY_MS)).toBe(health));

const workload = (name: string, more: Partial<Workload> = {}): Workload => ({
  uid: name, workload: name, namespace: "demo", spiffeId: `spiffe://mesh/ns/demo/sa/${name}`, address: "", version: "1", connected: true, ready: true,
  certificatesRenewed: 0, subscriptions: 0, refusedUpdates: [], ...more,
});

test("a certificate's life is counted from its issue, not from when it is dated back to", () => {
  const dated = workload("a", { certificateNotBeforeMs: 1_000, certificateNotAfterMs: 1_000 + BACKDATED_MS + DAY_MS });
  expect(lifeOf(dated, 5)).toEqual({ issuedMs: 1_000 + BACKDATED_MS, lifeMs: DAY_MS });
  expect(lifeOf(workload("a"), 5)).toEqual({ issuedMs: null, lifeMs: 5 });
});

test("what ends first stands first, and what is not known last", () => {
  const order = soonestFirst([workload("none"), workload("late", { certificateNotAfterMs: 9 }), workload("b", { certificateNotAfterMs: 3 }), workload("a", { certificateNotAfterMs: 3 })]);
  expect(order.map((it) => it.workload)).toEqual(["a", "b", "late", "none"]);
});

test("open edges: one for all backends, those that come to a sidecar first, none of mutual TLS", () => {
  const figures = { rps: 1, successRate: 1, p50Ms: 1, p99Ms: 1 };
  const service = (name: string, inMesh: boolean): MeshService => ({ ...figures, name, namespace: "demo", kind: "service", instances: 1, ready: 1, inMesh });
  const edge = (from: string, to: string, mtls: boolean, backend?: string): MeshEdge => ({ ...figures, from, to, mtls, backend: backend ?? null });
  const services = [service("web.demo", true), service("pay.demo", true), service("routes.demo", false), service("bank.demo", false)];
  const found = openEdges(services, [
    edge("web.demo", "bank.demo", false),
    edge("web.demo", "pay.demo", true),
    edge("pay.demo", "web.demo", false),
    edge("outside", "pay.demo", false),
    edge("web.demo", "routes.demo", false),
    edge("web.demo", "routes.demo", false, "pay.demo"),
    edge("web.demo", "unknown", false),
  ]);
  expect(found).toEqual([
    { from: "outside", to: "pay.demo", rps: 1, why: "no-sidecar" },
    { from: "pay.demo", to: "web.demo", rps: 1, why: "past-sidecar" },
    { from: "web.demo", to: "routes.demo", rps: 2, why: "past-sidecar" },
    { from: "web.demo", to: "bank.demo", rps: 1, why: "leaves" },
  ]);
});

test("years are told in days alone", () => {
  expect(remaining(59 * DAY_MS + 3_600_000)).toBe("59 d 1 h");
  expect(remaining(3649.9 * DAY_MS)).toBe("3649 days");
});

test("a fingerprint is shortened in groups", () => expect(short("0123456789abcdef0123")).toBe("0123 4567 89ab cdef"));
