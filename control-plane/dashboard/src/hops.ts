// Where requests' time goes, in words: what each segment of their way is, and which one takes the most.
import type { Hops, HopSegment } from "./api/types";
import { latency, percent } from "./format";

/** What a segment is called, and what happens there. */
const SEGMENTS: Record<string, { label: string; about: string }> = {
  caller: { label: "caller", about: "the caller sends its request's body, or takes its time to read the answer" },
  "client-sidecar": { label: "caller's sidecar", about: "limits, injected faults, waiting for a connection, connecting" },
  retries: { label: "earlier tries", about: "tries before the last one, and the waits between" },
  network: { label: "network", about: "between the sidecars, out and back" },
  "server-sidecar": { label: "service's sidecar", about: "limits and queues before the application" },
  application: { label: "application", about: "until it begins to answer" },
  "application-body": { label: "application, goes on", about: "from there until it has no more to say" },
  upstream: { label: "beyond the caller's sidecar", about: "not told apart: no sidecar there, or no answer" },
};

export function segmentWords(segment: string): { label: string; about: string } {
  return SEGMENTS[segment] ?? { label: segment, about: "" };
}

/** The segment with the largest share. */
export function most(hops: Hops): HopSegment | null {
  return hops.segments.reduce<HopSegment | null>((best, segment) => (best === null || segment.share > best.share ? segment : best), null);
}

/** "mostly network: 88 ms of 100 ms". */
export function verdict(hops: Hops): string {
  const largest = most(hops);
  if (largest === null) return "nothing was measured";
  const degree = largest.share >= 0.5 ? "mostly" : "no part alone; the largest is";
  return `${degree} ${segmentWords(largest.segment).label}: ${latency(largest.meanMs)} of ${latency(hops.meanMs)}`;
}

/** The whole bar, for those who do not see it. */
export function inWords(hops: Hops): string {
  return hops.segments.map((segment) => `${segmentWords(segment.segment).label} ${latency(segment.meanMs)}, ${percent(segment.share)}`).join("; ");
}
