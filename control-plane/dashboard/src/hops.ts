// Where requests' time goes, in words: what each segment of their way is. Which one stands out is the control plane's to say.
import type { HopSegment } from "./api/types";
import { latency, percent } from "./format";

/** What a segment is called, and what happens there. */
const SEGMENTS: Record<string, { label: string; about: string }> = {
  caller: { label: "caller", about: "the caller sends its request's body, or takes its time to read the answer" },
  "client-sidecar": { label: "caller's sidecar", about: "limits, injected faults, waiting for a connection, connecting, or for a processor" },
  retries: { label: "earlier tries", about: "tries before the last one, and the waits between" },
  network: { label: "network", about: "between the sidecars, out and back" },
  "server-sidecar": { label: "service's sidecar", about: "limits and queues before the application, or waiting for a processor" },
  application: { label: "application", about: "until it begins to answer" },
  "application-body": { label: "application, goes on", about: "from there until it has no more to say" },
  upstream: { label: "beyond the caller's sidecar", about: "not told apart: no sidecar there, or no answer" },
};

export function segmentWords(segment: string): { label: string; about: string } {
  return SEGMENTS[segment] ?? { label: segment, about: "" };
}

/** The whole bar, for those who do not see it. */
export function inWords(segments: readonly Pick<HopSegment, "segment" | "meanMs" | "share">[]): string {
  return segments.map((segment) => `${segmentWords(segment.segment).label} ${latency(segment.meanMs)}, ${percent(segment.share)}`).join("; ");
}
