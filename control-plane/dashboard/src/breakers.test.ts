// Breakers of many sidecars as few lines, without losing the one that is open.
import { expect, test } from "vitest";
import type { Breaker } from "./api/types";
import { groupBreakers } from "./breakers";

function breaker(workload: string, change: Partial<Breaker> = {}): Breaker {
  return { from: "cart.demo", workload, service: "payments.demo", state: "closed", inFlight: 1, latencyMs: 3, opened: 0, openedReason: "", share: 0.25, openMs: 0, ...change };
}

test("sidecars that agree are one line, and the one that doesn't is another and comes first", () => {
  const groups = groupBreakers([
    breaker("cart-1", { latencyMs: 0 }),
    breaker("cart-2", { inFlight: 2, latencyMs: 7 }),
    breaker("cart-3", { state: "open", share: 0, openMs: 1500, inFlight: 0, latencyMs: 0, opened: 4, openedReason: "5 failures in a row" }),
    breaker("admin-1", { from: "admin.demo" }),
  ]);
  expect(groups).toEqual([
    { from: "cart.demo", service: "payments.demo", state: "open", workloads: ["cart-3"], inFlight: 0, latencyMs: null, opened: 4, openedReason: "5 failures in a row", share: 0, openMs: 1500 },
    { from: "admin.demo", service: "payments.demo", state: "closed", workloads: ["admin-1"], inFlight: 1, latencyMs: 3, opened: 0, openedReason: "", share: 0.25, openMs: 0 },
    { from: "cart.demo", service: "payments.demo", state: "closed", workloads: ["cart-1", "cart-2"], inFlight: 3, latencyMs: 7, opened: 0, openedReason: "", share: 0.25, openMs: 0 },
  ]);
});

test("one that was never used is left out", () => {
  expect(groupBreakers([breaker("cart-1", { inFlight: 0, latencyMs: 0 })])).toEqual([]);
  expect(groupBreakers([breaker("cart-1", { inFlight: 0, latencyMs: 0, opened: 1 })])).toHaveLength(1);
});

test("calls by different services to the same endpoint stay apart", () => {
  expect(groupBreakers([breaker("cart-1"), breaker("cart-1", { service: "payments-v1.demo" })])).toHaveLength(2);
});
