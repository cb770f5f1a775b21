// Every kind of event has the tone that it should have; half-opened is not opened, unhealthy is not healthy.
import { expect, test } from "vitest";
import { toneOf } from "./events";

test.each([
  ["breaker-opened", "failing"],
  ["breaker-half-opened", "degraded"],
  ["breaker-closed", "good"],
  ["workload-joined", "good"],
  ["workload-left", "degraded"],
  ["workload-healthy", "good"],
  ["workload-unhealthy", "failing"],
  ["certificate-renewed", "good"],
  ["configuration-refused", "failing"],
  ["document-applied", "idle"],
  ["document-deleted", "idle"],
  ["something-new", "idle"],
] as const)("%s is %s", (kind, tone) => expect(toneOf(kind)).toBe(tone));
