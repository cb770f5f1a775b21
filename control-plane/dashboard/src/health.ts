// How well something does, in four words, from its figures. Each level has a word and a shape besides its colour.
import type { Figures } from "./api/types";

/** "idle": nothing was measured, which is neither good nor bad. */
export type Health = "good" | "degraded" | "failing" | "idle";

/** Under this share of successes a service is degraded… */
export const DEGRADED_BELOW = 0.99;
/** …and under this one it is failing. */
export const FAILING_BELOW = 0.9;

/** The health that a success rate tells of. */
export function healthOf(figures: Pick<Figures, "rps" | "successRate">): Health {
  if (figures.successRate == null || figures.rps <= 0) return "idle";
  if (figures.successRate < FAILING_BELOW) return "failing";
  if (figures.successRate < DEGRADED_BELOW) return "degraded";
  return "good";
}

/** A service's health: its success rate, and whether anything is there to answer. */
export function serviceHealth(service: Figures & { instances: number; ready: number }): Health {
  const measured = healthOf(service);
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
