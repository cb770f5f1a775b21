// What is said of a split.
import { expect, test } from "vitest";
import type { Hops } from "./api/types";
import { inWords, segmentWords, verdict } from "./hops";

function split(shares: Record<string, number>): Hops {
  const segments = Object.entries(shares).map(([segment, share]) => ({ segment, share, meanMs: share * 100, p50Ms: share * 100, p99Ms: share * 200 }));
  return { requests: 10, meanMs: 100, segments };
}

test("one segment that takes most is named", () => {
  expect(verdict(split({ "client-sidecar": 0.1, network: 0.9 }))).toBe("mostly network: 90 ms of 100 ms");
});

test("where none does, the largest is", () => {
  expect(verdict(split({ network: 0.3, "server-sidecar": 0.3, application: 0.4 }))).toBe("no part alone; the largest is application: 40 ms of 100 ms");
});

test("a bar can be heard", () => {
  expect(inWords(split({ retries: 0.25, application: 0.75 }))).toBe("earlier tries 25 ms, 25.0 %; application 75 ms, 75.0 %");
});

test("a segment of a later release is called what it calls itself", () => {
  expect(segmentWords("queue").label).toBe("queue");
  expect(verdict(split({}))).toBe("nothing was measured");
});
