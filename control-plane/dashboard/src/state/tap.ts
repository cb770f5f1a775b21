// Live requests as a value, and how each thing that happens changes it; no input or output here.
import type { TapEvent, TapStatus } from "../api/tap";

/** Requests kept, and so the rows drawn. Filters apply before: who looks for something rare narrows what is watched. */
export const KEPT = 200;

export interface Row {
  /** In the order of arrival. */
  id: number;
  request: TapEvent;
}

export type TapState = "connecting" | "watching" | "lost" | "ended" | "refused" | "needs-token";

export interface Tap {
  state: TapState;
  /** Why it is so. */
  why: string;
  /** What is shown: of the latest that have come, those that began last first, as the time beside them says. */
  rows: readonly Row[];
  /** What has come while the list stands still, as much as is kept of it. */
  held: readonly Row[];
  /** Of them all, how many have come since then. */
  heldBack: number;
  paused: boolean;
  status: TapStatus | null;
  arrived: number;
}

export type TapHappening =
  | { type: "opened" }
  | { type: "requests"; requests: readonly TapEvent[] }
  | { type: "status"; status: TapStatus }
  | { type: "stopped"; state: Exclude<TapState, "watching">; why: string }
  | { type: "pause" }
  | { type: "resume" }
  | { type: "clear" }
  | { type: "anew" };

export const EMPTY: Tap = { state: "connecting", why: "", rows: [], held: [], heldBack: 0, paused: false, status: null, arrived: 0 };

export function reduce(tap: Tap, happening: TapHappening): Tap {
  switch (happening.type) {
    case "opened":
      return { ...tap, state: "watching", why: "" };
    case "requests": {
      const arrived = tap.arrived + happening.requests.length;
      const fresh = happening.requests.map((request, index) => ({ id: tap.arrived + index, request }));
      if (tap.paused) return { ...tap, arrived, held: latest(fresh, tap.held, arrived), heldBack: tap.heldBack + fresh.length };
      return { ...tap, arrived, rows: latest(fresh, tap.rows, arrived) };
    }
    case "status":
      return { ...tap, status: happening.status };
    case "stopped":
      return { ...tap, state: happening.state, why: happening.why, status: null };
    case "pause":
      return { ...tap, paused: true };
    case "resume":
      return { ...tap, paused: false, rows: latest(tap.held, tap.rows, tap.arrived), held: [], heldBack: 0 };
    case "clear":
      return { ...tap, rows: [], held: [], heldBack: 0 };
    case "anew":
      return EMPTY;
  }
}

/** Those that came last, so that their numbers lie within `KEPT` of each other. */
function latest(fresh: readonly Row[], known: readonly Row[], arrived: number): readonly Row[] {
  if (fresh.length === 0) return known;
  const kept = [...fresh, ...known].filter(({ id }) => id >= arrived - KEPT);
  return kept.sort((a, b) => b.request.timeMs - a.request.timeMs || b.id - a.id);
}

/** What is not shown, in words; empty where all is. */
export function leftOut(status: TapStatus | null): string {
  if (status === null) return "";
  const { limited, overflowed, unread } = status.dropped;
  const parts = [
    limited > 0 && `${limited} beyond the rate`,
    overflowed > 0 && `${overflowed} that sidecars could not pass on`,
    unread > 0 && `${unread} that this page did not take in time`,
  ].filter((part) => part !== false);
  return parts.length === 0 ? "" : `Left out so far: ${parts.join(", ")}.`;
}
