// Health from figures: thresholds, and what counts when nothing was measured.
import { expect, test } from "vitest";
import { healthOf, serviceHealth } from "./health";

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
