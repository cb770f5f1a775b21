// Layers on top of each other: where each begins and ends, and which errors there are to stack.
import type { Series } from "../api/types";

export interface Layer {
  label: string;
  values: readonly number[];
  /** A colour variable of the style sheet. */
  colour: string;
}

/** By layer and point: where it ends; it begins where the one beneath ends. */
export function tops(layers: readonly Layer[]): number[][] {
  const under: number[] = [];
  return layers.map(({ values }) =>
    values.map((value, index) => {
      under[index] = (under[index] ?? 0) + Math.max(0, value);
      return under[index];
    }),
  );
}

/** What sidecars refuse for the caller's sake, with a status of 4xx: no failures, but worth seeing. */
const CALLERS_FAULT = new Set([
  "unknown-service", "unknown-port", "outside-refused", "opaque-refused", "no-target", "route-not-matched", "port-not-served", "malformed-request",
  "headers-too-large", "uri-too-long", "http2-abuse", "rate-limited", "body-too-large", "plaintext-refused",
]);

/** Reasons that are drawn apart; the others are one. */
export const MOST_REASONS = 5;

/**
 * Errors per second by reason, those first that there were most of. What failed without a sidecar's refusal is the
 * application's own answer.
 */
export function errorLayers(series: Pick<Series, "failed" | "refusals" | "refusalsByCallee">): { label: string; values: number[] }[] {
  const named = (refusals: Series["refusals"], by: string) =>
    Object.entries(refusals).map(([reason, values]) => ({ reason, label: `${reason}${by}`, values, sum: total(values) }));
  const reasons = [...named(series.refusals, ""), ...named(series.refusalsByCallee, " (there)")];
  const mesh = series.failed.map((_, index) => reasons.reduce((sum, { reason, values }) => sum + (CALLERS_FAULT.has(reason) ? 0 : values[index] ?? 0), 0));
  // Rates are rounded each on its own.
  const own = series.failed.map((failed, index) => (failed - mesh[index]! > 0.002 ? failed - mesh[index]! : 0));
  const all = [...reasons, { label: "application", values: own, sum: total(own) }].filter(({ sum }) => sum > 0);
  all.sort((a, b) => b.sum - a.sum || (a.label < b.label ? -1 : 1));
  if (all.length <= MOST_REASONS) return all.map(({ label, values }) => ({ label, values }));
  const rest = all.slice(MOST_REASONS - 1);
  return [
    ...all.slice(0, MOST_REASONS - 1).map(({ label, values }) => ({ label, values })),
    { label: `${rest.length} others`, values: series.failed.map((_, index) => rest.reduce((sum, { values }) => sum + (values[index] ?? 0), 0)) },
  ];
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
