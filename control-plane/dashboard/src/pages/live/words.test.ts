// How a request ended is said with whose word it is, and its bar adds up.
import { expect, test } from "vitest";
import type { TapEvent } from "../../api/tap";
import { hopsOf, isBad, outcome } from "./words";

const request: TapEvent = {
  timeMs: 0, sidecar: "web-1", namespace: "demo", direction: "outbound", from: "web.demo", to: "payments.demo", mtls: true, method: "GET", path: "/",
  status: 200, failed: false, durationMs: 10, segments: [{ segment: "network", ms: 2 }, { segment: "application", ms: 8 }], attempts: 1,
};

test.each([
  [request, "200", false],
  [{ ...request, status: 503, failed: true }, "503", true],
  [{ ...request, status: 429, reason: "rate-limited", refusedBy: "inbound" }, "429 rate-limited (inbound)", true],
  [{ ...request, grpcStatus: 14, failed: true }, "grpc-14", true],
  [{ ...request, status: undefined, cancelled: true }, "cancelled", false],
] as [TapEvent, string, boolean][])("%#", (it, words, bad) => {
  expect(outcome(it)).toBe(words);
  expect(isBad(it)).toBe(bad);
});

test("its parts are shares of the whole", () => {
  expect(hopsOf(request).segments.map(({ share }) => share)).toEqual([0.2, 0.8]);
  expect(hopsOf({ ...request, segments: [] }).segments).toEqual([]);
});
