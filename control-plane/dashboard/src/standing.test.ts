// What is said of a sidecar's configuration and its host's clock, and where complaints lead.
import { expect, test } from "vitest";
import type { Workload } from "./api/types";
import { complaint, configurationOf, skewOf } from "./standing";

const refusal = { uid: "u", service: "pay.demo", kind: "config", reason: "no" };

test.each([
  [{ connected: false }, "idle", "as it was sent last"],
  [{}, "good", "acknowledged"],
  [{ waitingSinceMs: 9_000 }, "good", "waiting for 1 s"],
  [{ waitingSinceMs: 3_000 }, "degraded", "waiting for 7 s"],
  // Its clock and ours are read at different moments.
  [{ waitingSinceMs: 11_000 }, "good", "waiting for 0 s"],
  [{ waitingSinceMs: 3_000, refusedUpdates: [refusal] }, "failing", "1 refused"],
] as const)("%o is %s: %s", (workload, health, word) => {
  const whole = { connected: true, refusedUpdates: [], ...workload } as unknown as Workload;
  expect(configurationOf(whole, 10_000)).toEqual({ health, word });
});

test.each([
  [null, "idle", "not known"],
  [0, "good", "in step"],
  [12, "good", "12 ms behind"],
  [-2_500, "good", "2.5 s ahead"],
  [31_000, "degraded", "31 s behind"],
  [-180_000, "failing", "3 min ahead"],
] as const)("a skew of %s ms is %s: %s", (skew, health, word) => expect(skewOf(skew)).toEqual({ health, word }));

test("a complaint leads to its document", () => {
  expect(complaint("TrafficPolicy demo/web: spec.retries: too many: 9")).toEqual({
    href: "#/documents/trafficpolicies/demo/web", document: "TrafficPolicy demo/web", words: "spec.retries: too many: 9",
  });
  expect(complaint("HTTPRoute demo/web: x").href).toBe("#/documents/httproutes/demo/web");
  expect(complaint("Something else")).toEqual({ href: null, document: "", words: "Something else" });
});
