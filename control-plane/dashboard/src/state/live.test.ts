// The live state: what a message changes, what is remembered, and when it counts as stale.
import { describe, expect, test } from "vitest";
import type { Mesh, MeshEdge, MeshEvent } from "../api/types";
import type { Followed } from "./follow";
import { EDGE_KEPT_MS, EVENTS_KEPT, RATES_KEPT, STALE_AFTER_MS, edgeKey, happeningOf, initial, reduce, staleSince } from "./live";

const edge: MeshEdge = {
  from: "web.demo", to: "cart.demo", backend: "", rps: 4, successRate: 1, p50Ms: 2, p99Ms: 8, mtls: true, tlsVersion: "TLS 1.3", refusals: { "queue-full": 1 },
};

function mesh(change: Partial<Mesh> = {}): Mesh {
  return {
    serverTimeMs: 1_000_000, startedMs: 1, version: "0.1.0", trustDomain: "mesh.local", window: { seconds: 10 },
    services: [{ name: "cart.demo", namespace: "demo", kind: "service", instances: 1, ready: 1, inMesh: true, rps: 4, successRate: 1, p50Ms: 2, p99Ms: 8 }],
    edges: [edge], events: [], ...change,
  };
}

function event(id: number): MeshEvent {
  return { id, timeMs: id * 10, kind: "breaker-opened", text: `event ${id}` };
}

const ids = (events: readonly MeshEvent[]) => events.map(({ id }) => id);

describe("what the event stream tells", () => {
  const refused = (status: number, reason: string): Followed => ({
    type: "refused",
    problem: { type: `urn:pillion:problem:${reason}`, title: "", status, detail: "because", faults: [] },
  });
  const ended: Followed = { type: "event", event: { name: "ended", data: '{"reason":"the token was revoked"}' } };

  test.each([
    [refused(401, "token-missing"), false, { type: "locked", why: "" }],
    ...["token-unknown", "token-malformed", "token-expired", "token-revoked"].map((reason) => [refused(401, reason), true, { type: "locked", why: "because" }] as const),
    [ended, true, { type: "locked", why: "the token was revoked" }],
    [refused(403, "token-lacks-namespace"), true, { type: "denied", why: "because", nowMs: 7 }],
    [refused(503, "store-unavailable"), true, { type: "lost" }],
    [refused(401, ""), true, { type: "lost" }],
    [{ type: "lost", why: "" }, false, { type: "lost" }],
    [{ type: "opened" }, false, null],
  ] as const)("only a token that does not hold locks: %j", (followed, withToken, happening) => {
    expect(happeningOf(followed as Followed, withToken, 7)).toEqual(happening);
  });
});

describe("staleness", () => {
  test("nothing has come yet: patience first, then since the page was opened", () => {
    expect(staleSince(initial(100), 100 + STALE_AFTER_MS)).toBeNull();
    expect(staleSince(initial(100), 101 + STALE_AFTER_MS)).toBe(100);
  });

  test("who is told nothing without a token is not told that nobody answers; what comes after ends it", () => {
    const locked = reduce(initial(100), { type: "locked", why: "" });
    expect([locked.locked, staleSince(locked, 1_000_000)]).toEqual(["", null]);
    expect(reduce(locked, { type: "mesh", mesh: mesh(), nowMs: 200 }).locked).toBeNull();
  });

  test("who may see one namespace only is shown nothing of another token's mesh, and is neither locked out nor stale until nobody answers", () => {
    const seen = reduce(reduce(initial(100), { type: "locked", why: "" }), { type: "mesh", mesh: mesh({ events: [event(1)] }), nowMs: 200 });
    const denied = reduce(seen, { type: "denied", why: "for demo only", nowMs: 300 });
    expect([denied.denied, denied.locked, denied.mesh, denied.events, denied.edges.size]).toEqual(["for demo only", null, null, [], 0]);
    expect(staleSince(denied, 1_000_000)).toBeNull();
    expect(staleSince(reduce(denied, { type: "lost" }), 1_000_000)).toBe(300);
    expect(reduce(denied, { type: "locked", why: "revoked" })).toMatchObject({ denied: null, locked: "revoked" });
    expect(reduce(denied, { type: "mesh", mesh: mesh(), nowMs: 400 }).denied).toBeNull();
  });

  test("a lost connection is stale at once, since the last message; the next message ends it", () => {
    let live = reduce(initial(0), { type: "mesh", mesh: mesh(), nowMs: 500 });
    expect(staleSince(live, 600)).toBeNull();
    live = reduce(live, { type: "lost" });
    expect(staleSince(live, 600)).toBe(500);
    expect(reduce(live, { type: "lost" })).toBe(live);
    live = reduce(live, { type: "mesh", mesh: mesh(), nowMs: 700 });
    expect(staleSince(live, 800)).toBeNull();
  });

  test("silence on an open connection is stale too", () => {
    const live = reduce(initial(0), { type: "mesh", mesh: mesh(), nowMs: 500 });
    expect(staleSince(live, 501 + STALE_AFTER_MS)).toBe(500);
  });
});

test("the control plane's clock is known relative to the browser's", () => {
  expect(reduce(initial(0), { type: "mesh", mesh: mesh(), nowMs: 990_000 }).clockOffsetMs).toBe(10_000);
});

describe("events", () => {
  test("are merged by id, newest first, and kept after they left the message", () => {
    let live = reduce(initial(0), { type: "mesh", mesh: mesh({ events: [event(1), event(2)] }), nowMs: 0 });
    live = reduce(live, { type: "mesh", mesh: mesh({ events: [event(3), event(2)] }), nowMs: 1 });
    expect(ids(live.events)).toEqual([3, 2, 1]);
  });

  test("stay the same value while nothing new happens, so that nothing is announced again", () => {
    const before = reduce(initial(0), { type: "mesh", mesh: mesh({ events: [event(1)] }), nowMs: 0 });
    const after = reduce(before, { type: "mesh", mesh: mesh({ events: [event(1)] }), nowMs: 1 });
    expect(after.events).toBe(before.events);
  });

  test("begin anew after the control plane restarted, which counts them from the start", () => {
    let live = reduce(initial(0), { type: "mesh", mesh: mesh({ events: [event(8), event(9)] }), nowMs: 0 });
    live = reduce(live, { type: "mesh", mesh: mesh({ startedMs: 2, events: [event(1)] }), nowMs: 1 });
    expect(ids(live.events)).toEqual([1]);
  });

  test("are bounded", () => {
    const many = Array.from({ length: EVENTS_KEPT + 20 }, (_, index) => event(index + 1));
    const live = reduce(initial(0), { type: "mesh", mesh: mesh({ events: many }), nowMs: 0 });
    expect(live.events).toHaveLength(EVENTS_KEPT);
    expect(live.events[0]!.id).toBe(EVENTS_KEPT + 20);
  });
});

describe("edges", () => {
  test("that fall silent stay, without figures, and are forgotten in the end", () => {
    let live = reduce(initial(0), { type: "mesh", mesh: mesh(), nowMs: 0 });
    live = reduce(live, { type: "mesh", mesh: mesh({ edges: [], serverTimeMs: 1_000_000 + EDGE_KEPT_MS }), nowMs: 1 });
    const remembered = live.edges.get(edgeKey(edge))!.edge;
    expect(remembered).toMatchObject({ mtls: true, rps: 0, successRate: null, p99Ms: null });
    expect(remembered.refusals).toBeUndefined();
    live = reduce(live, { type: "mesh", mesh: mesh({ edges: [], serverTimeMs: 1_000_001 + EDGE_KEPT_MS }), nowMs: 2 });
    expect(live.edges.size).toBe(0);
  });
});

describe("rates", () => {
  test("are kept for about a minute, and a service that is gone is forgotten", () => {
    let live = initial(0);
    for (let round = 1; round <= RATES_KEPT + 5; round++) {
      const [service] = mesh().services;
      live = reduce(live, { type: "mesh", mesh: mesh({ services: [{ ...service!, rps: round }] }), nowMs: round });
    }
    const kept = live.rates.get("cart.demo")!;
    expect(kept).toHaveLength(RATES_KEPT);
    expect([kept[0], kept.at(-1)]).toEqual([6, RATES_KEPT + 5]);
    expect(reduce(live, { type: "mesh", mesh: mesh({ services: [] }), nowMs: 99 }).rates.size).toBe(0);
  });

  test("of a backend without figures of its own are those of the edges that it served", () => {
    const [service] = mesh().services;
    const backend = { ...service!, name: "cart-v2.demo", rps: 0 };
    const live = reduce(initial(0), { type: "mesh", mesh: mesh({ services: [backend], edges: [{ ...edge, backend: "cart-v2.demo" }] }), nowMs: 0 });
    expect(live.rates.get("cart-v2.demo")).toEqual([4]);
  });
});
