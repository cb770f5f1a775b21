// Breakers as callers hold them, brought together: one line for all sidecars of a caller that see an endpoint alike.
import type { Breaker, BreakerState } from "./api/types";

export interface BreakerGroup {
  from: string;
  /** The service by which it is called, where that is another than the page's. */
  service: string;
  state: BreakerState;
  /** The callers' workloads in this state. */
  workloads: string[];
  inFlight: number;
  /** The largest estimate; `null` if none has one. */
  latencyMs: number | null;
  opened: number;
  openedReason: string;
  /** The largest share and the longest time of theirs. */
  share: number;
  openMs: number;
}

const URGENCY: Record<BreakerState, number> = { open: 0, "half-open": 1, closed: 2 };

/** The most urgent first, then by caller; without those that were never used, as a caller has for each of its endpoints. */
export function groupBreakers(breakers: readonly Breaker[]): BreakerGroup[] {
  const groups = new Map<string, BreakerGroup>();
  for (const breaker of breakers) {
    if (breaker.state === "closed" && breaker.inFlight === 0 && !breaker.latencyMs && breaker.opened === 0) continue;
    const key = `${breaker.from} ${breaker.service} ${breaker.state}`;
    const group = groups.get(key) ?? {
      from: breaker.from,
      service: breaker.service,
      state: breaker.state,
      workloads: [],
      inFlight: 0,
      latencyMs: null,
      opened: 0,
      openedReason: "",
      share: 0,
      openMs: 0,
    };
    group.workloads.push(breaker.workload);
    group.inFlight += breaker.inFlight;
    // An estimate of zero is one that was never made.
    if (breaker.latencyMs) group.latencyMs = Math.max(group.latencyMs ?? 0, breaker.latencyMs);
    group.share = Math.max(group.share, breaker.share);
    group.openMs = Math.max(group.openMs, breaker.openMs);
    group.opened += breaker.opened;
    group.openedReason ||= breaker.openedReason ?? "";
    groups.set(key, group);
  }
  return [...groups.values()].sort(
    (a, b) => URGENCY[a.state] - URGENCY[b.state] || a.from.localeCompare(b.from) || a.service.localeCompare(b.service),
  );
}
