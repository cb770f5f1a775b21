// How sidecars stand with the control plane, and where its complaints lead. Pure.
import type { Workload } from "./api/types";
import { latency, span } from "./format";
import type { Health } from "./health";
import { documentHref } from "./route";

/** Longer than that nobody should take to answer an update. */
const SLOW_MS = 5_000;
/** From which sidecars warn of their host's clock, and beyond which certificates count as not yet valid. */
const SKEW_MS = 30_000;
const SKEW_MOST_MS = 120_000;

export interface Said {
  health: Health;
  word: string;
}

/** Whether a sidecar has what it should have. */
export function configurationOf({ connected, waitingSinceMs, refusedUpdates }: Workload, nowMs: number): Said {
  if (!connected) return { health: "idle", word: "as it was sent last" };
  if (refusedUpdates.length > 0) return { health: "failing", word: `${refusedUpdates.length} refused` };
  if (waitingSinceMs == null) return { health: "good", word: "acknowledged" };
  const waited = Math.max(0, nowMs - waitingSinceMs);
  return { health: waited > SLOW_MS ? "degraded" : "good", word: `waiting for ${span(waited)}` };
}

/** The control plane's clock minus a host's. */
export function skewOf(skewMs: number | null | undefined): Said {
  if (skewMs == null) return { health: "idle", word: "not known" };
  const off = Math.abs(skewMs);
  const health = off > SKEW_MOST_MS ? "failing" : off > SKEW_MS ? "degraded" : "good";
  if (off < 1) return { health, word: "in step" };
  return { health, word: `${off < 60_000 ? latency(off) : span(off)} ${skewMs > 0 ? "behind" : "ahead"}` };
}

/** A complaint begins with its document: "TrafficPolicy demo/web: spec.x: …". Its page, and the rest of the words. */
export function complaint(text: string): { href: string | null; document: string; words: string } {
  const [, kind, namespace, name, words] = /^([A-Z]\w+) ([^\s/]+)\/([^\s/:]+): ([^]*)$/.exec(text) ?? [];
  if (!kind || !namespace || !name || !words) return { href: null, document: "", words: text };
  const plural = `${kind.toLowerCase()}s`.replace(/ys$/, "ies");
  return { href: documentHref(plural, namespace, name), document: `${kind} ${namespace}/${name}`, words };
}
