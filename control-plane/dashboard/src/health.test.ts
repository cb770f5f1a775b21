// Health from figures: thresholds, and what counts when nothing was measured.
import { expect, test } from "vitest";
import { edgeHealth, healthOf, healthWord, limitedShare, serviceHealth } from "./health";

const quiet = { rps: 0, successRate: null, p50Ms: null, p99Ms: null };
const busy = (successRate: number) => ({ rps: 5, successRate, p50Ms: 1, p99Ms: 2 });

test.each([
  [1, "good"],
  [0.99, "good"],
  [0.9899, "degraded"],
  [0.9, "degraded"],
  [0.8999, "failing"],
  [0, "failing"],
] as const)("a success rate of %s is %s", (successRate, health) => expect(healthOf(busy(successRate))).toBe(health));

test("nothing measured is idle, not good", () => expect(healthOf(quiet)).toBe("idle"));

test("readiness counts as well as success", () => {
  expect(serviceHealth({ ...busy(1), instances: 3, ready: 3 })).toBe("good");
  expect(serviceHealth({ ...busy(1), instances: 3, ready: 2 })).toBe("degraded");
  expect(serviceHealth({ ...busy(0.5), instances: 3, ready: 2 })).toBe("failing");
  expect(serviceHealth({ ...quiet, instances: 3, ready: 0 })).toBe("failing");
  expect(serviceHealth({ ...quiet, instances: 0, ready: 0 })).toBe("idle");
});

test.each([
  ["nothing", {}, "good", "healthy"],
  ["a few", { "rate-limited": 0.05 }, "good", "healthy"],
  ["half of them", { "rate-limited": 2.5 }, "degraded", "limiting, 50.0 % refused"],
  ["all of them", { "rate-limited": 7 }, "degraded", "limiting, 100 % refused"],
  ["strangers, as it should", { unauthorized: 2.5 }, "good", "healthy"],
] as const)("of a service that answers well, and whose limit refuses %s", (_, refusals, health, word) => {
  const service = { ...busy(1), instances: 1, ready: 1, refusals };
  expect(serviceHealth(service)).toBe(health);
  expect(healthWord(serviceHealth(service), limitedShare(service.rps, refusals))).toBe(word);
  expect(edgeHealth({ ...busy(1), refusalsByCallee: refusals })).toBe(health);
});

test("a limit makes nothing better", () => {
  const refusals = { "rate-limited": 2.5 };
  const failing = serviceHealth({ ...busy(0.5), instances: 1, ready: 1, refusals });
  expect(failing).toBe("failing");
  expect(healthWord(failing, 0.5)).toBe("failing, limiting, 50.0 % refused");
  expect(serviceHealth({ ...quiet, instances: 1, ready: 1, refusals })).toBe("idle");
});
