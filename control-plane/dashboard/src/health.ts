// How well something does, in four words, from its figures. Each level has a word and a shape besides its colour.
import type { Figures, MeshEdge } from "./api/types";
import { percent } from "./format";

/** "idle": nothing was measured, which is neither good nor bad. */
export type Health = "good" | "degraded" | "failing" | "idle";

/** Under this share of successes a service is degraded… */
export const DEGRADED_BELOW = 0.99;
/** …and under this one it is failing. */
export const FAILING_BELOW = 0.9;

/** What a workload's own limit refuses is no failure of anybody's, and no success of the service either. */
const LIMITED = "rate-limited";

/** Of all requests, those that a limit refused, from 0 to 1. */
export function limitedShare(rps: number, refusals: Record<string, number> | undefined): number {
  const limited = refusals?.[LIMITED] ?? 0;
  return limited > 0 && rps > 0 ? Math.min(1, limited / rps) : 0;
}

/** The same of an edge, where the service's sidecar says so. */
export function limitedOnEdge({ rps, refusalsByCallee }: Pick<MeshEdge, "rps" | "refusalsByCallee">): number {
  return limitedShare(rps, refusalsByCallee);
}

/** The health that a success rate tells of. */
export function healthOf(figures: Pick<Figures, "rps" | "successRate">): Health {
  if (figures.successRate == null || figures.rps <= 0) return "idle";
  if (figures.successRate < FAILING_BELOW) return "failing";
  if (figures.successRate < DEGRADED_BELOW) return "degraded";
  return "good";
}

/** An edge's: its success rate, and how many of its requests are answered at all. */
export function edgeHealth(edge: Figures & Pick<MeshEdge, "refusalsByCallee">): Health {
  return withLimits(healthOf(edge), limitedOnEdge(edge));
}

function withLimits(measured: Health, limited: number): Health {
  return measured === "good" && 1 - limited < DEGRADED_BELOW ? "degraded" : measured;
}

/** A service's health: its success rate, how many requests it takes, and whether anything is there to answer. */
export function serviceHealth(service: Figures & { instances: number; ready: number; refusals?: Record<string, number> }): Health {
  const measured = withLimits(healthOf(service), limitedShare(service.rps, service.refusals));
  if (service.instances > 0 && service.ready === 0) return "failing";
  if (service.ready < service.instances && (measured === "good" || measured === "idle")) return "degraded";
  return measured;
}

export const HEALTH_WORDS: Record<Health, string> = {
  good: "healthy",
  degraded: "degraded",
  failing: "failing",
  idle: "no traffic",
};

/** The word for it; where a limit is the reason, or one more, that is said. */
export function healthWord(health: Health, limited: number): string {
  if (1 - limited >= DEGRADED_BELOW) return HEALTH_WORDS[health];
  const share = `limiting, ${percent(limited)} refused`;
  return health === "degraded" ? share : `${HEALTH_WORDS[health]}, ${share}`;
}
