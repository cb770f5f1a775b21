// Policies in figures: what is shown, what draws the eye, and that nothing moves when a number begins to count.
import { expect, test } from "vitest";
import { addRepeats, policyFigures, repeatsInWords } from "./activity";
import type { Activity, Policy } from "./api/types";

const quiet: Activity = { seconds: 300, retryBudgetPercent: 20, hedgeBudgetPercent: null };

function policy(fields: Record<string, string>): Policy {
  return { service: "a.b", source: null, fields: Object.entries(fields).map(([field, value]) => ({ field, value, source: "default", about: "" })) };
}

const unset = policy({ retry: "none", hedge: "none", fallback: "none", rateLimits: "none", concurrency: "none", faults: "none" });
const ids = (...of: Parameters<typeof policyFigures>) => policyFigures(...of).map(({ id }) => id);
const card = (id: string, ...of: Parameters<typeof policyFigures>) => policyFigures(...of).find((entry) => entry.id === id)!;
const counts = (id: string, ...of: Parameters<typeof policyFigures>) =>
  card(id, ...of).figures.map(({ label, count, bad }) => `${count} ${label}${bad ? "!" : ""}`);

test("what always holds is always there, and what is set or did something is, too", () => {
  expect(ids(null, quiet)).toEqual(["retry", "circuitBreaker"]);
  expect(ids(unset, quiet)).toEqual(["retry", "circuitBreaker"]);
  const set = policy({ "retry.attempts": "3", "hedge.after": "50ms", "fallback.response.status": "200", rateLimits: "[…]", "concurrency.max": "9", faults: "[…]" });
  const all = ["retry", "hedge", "circuitBreaker", "fallback", "rateLimits", "concurrency", "faults"];
  expect(ids(set, quiet)).toEqual(all);
  const busy = { ...quiet, hedges: 1, fallbacksServed: { "no-endpoints": 1 }, rateAdmitted: { all: 1 }, shed: { low: 1 }, faultsDelayed: { slow: 1 } };
  expect(ids(set, busy), "a first number brings no card").toEqual(all);
  expect(ids(unset, { ...quiet, mirrored: { answered: 1 } })).toEqual(["retry", "circuitBreaker", "mirror"]);
});

test("retries say their budget and what came of them", () => {
  const set = policy({ "retry.attempts": "2", "retry.budget.percent": "none" });
  expect(card("retry", set, quiet).setting).toBe("2 attempts after the first, 20 % budget");
  expect(card("retry", unset, quiet).setting).toBe("only of what was not processed, 20 % budget");
  expect(counts("retry", set, { ...quiet, retries: 312, recovered: 290 })).toEqual(["312 retries", "290 recovered", "0 over budget"]);
  expect(counts("retry", set, { ...quiet, retriesOverBudget: 12_345 })).toEqual(["0 retries", "0 recovered", "12.3k over budget!"]);
});

test("limits and refusals are told by name, the most first", () => {
  const activity: Activity = {
    ...quiet,
    fallbacksServed: { "no-endpoints": 1, "breakers-open": 5 },
    fallbacksFailed: { "breakers-open": 2 },
    rateAdmitted: { all: 70, expensive: 3 },
    rateLimited: { expensive: 4 },
    limitedClients: [{ client: "spiffe://mesh.local/ns/demo/sa/cart", limited: 4 }],
    shed: { low: 2 },
    concurrency: [{ workload: "web-1", port: 8080, limit: 20, inFlight: 3, queued: 1, minRttMs: 4 }],
  };
  const rows = (id: string) => card(id, unset, activity).rows.map(({ name, text }) => `${name}: ${text}`);
  expect(rows("fallback")).toEqual(["breakers-open: 5 served", "no-endpoints: 1 served", "breakers-open: 2 failed"]);
  expect(rows("rateLimits")).toEqual(["all: 70 admitted, 0 limited", "expensive: 3 admitted, 4 limited", "ns/demo/sa/cart: 4 limited"]);
  expect(rows("concurrency")).toEqual(["priority low: 2 shed", "web-1: 3 of 20, 1 queued, best 4.0 ms"]);
  expect(counts("rateLimits", unset, activity)).toEqual(["73 admitted", "4 limited!"]);
  expect(counts("concurrency", unset, activity)).toEqual(["3 in flight", "1 queued!", "2 shed!"]);
});

test("an edge's retries are few words, and those of several edges are added", () => {
  expect(repeatsInWords(undefined)).toBe("");
  expect(repeatsInWords({ retries: 1, recovered: 1, hedges: 3, hedgesOverBudget: 2 })).toBe("1 retry, 1 recovered, 3 hedges, 2 hedges over budget");
  expect(addRepeats([{ retries: 1 }, undefined, { retries: 2, hedges: 1 }])).toEqual({ retries: 3, hedges: 1 });
});
