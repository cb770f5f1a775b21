// What the page knows of the mesh, as a value, and how each thing that happens changes it. No input or output here.
import { inWords, lacksToken, wantsToken } from "../api/problem";
import type { Mesh, MeshEdge, MeshEvent } from "../api/types";
import type { Followed } from "./follow";

/** Events kept; the control plane sends the latest 50 and older ones stay from earlier messages. */
export const EVENTS_KEPT = 500;
/** Request rates kept per service, one per message: about a minute. */
export const RATES_KEPT = 60;
/** How long an edge stays on the map after its last request, so that a quiet moment doesn't change the layout. */
export const EDGE_KEPT_MS = 120_000;
/** The control plane sends each second; after this much silence what is shown counts as stale. */
export const STALE_AFTER_MS = 5_000;

export interface RememberedEdge {
  edge: MeshEdge;
  /** By the control plane's clock. */
  seenMs: number;
}

export interface Live {
  mesh: Mesh | null;
  /** When the last message arrived, by the browser's clock. */
  receivedMs: number | null;
  /** When the page began to wait for its first message, by the browser's clock. */
  openedMs: number;
  /** The connection was lost and has brought nothing since. */
  lost: boolean;
  /** Why nobody is told anything without another token; `null`: it is told. */
  locked: string | null;
  /** Why the token, which is good, shows nothing of the whole mesh; `null`: it does. */
  denied: string | null;
  /** The control plane's clock minus the browser's. */
  clockOffsetMs: number;
  /** Newest first. */
  events: MeshEvent[];
  /** Request rates by service, oldest first. */
  rates: ReadonlyMap<string, readonly number[]>;
  edges: ReadonlyMap<string, RememberedEdge>;
}

export type Happening =
  | { type: "mesh"; mesh: Mesh; nowMs: number }
  | { type: "lost" }
  /** Reading needs a token; `why` the last one did not do, empty where there was none. */
  | { type: "locked"; why: string }
  /** The token is not for the whole mesh. */
  | { type: "denied"; why: string; nowMs: number };

export function initial(nowMs: number): Live {
  return {
    mesh: null,
    receivedMs: null,
    openedMs: nowMs,
    lost: false,
    locked: null,
    denied: null,
    clockOffsetMs: 0,
    events: [],
    rates: new Map(),
    edges: new Map(),
  };
}

/** What the event stream, opened with or without a token, tells; `null`: nothing. */
export function happeningOf(followed: Followed, withToken: boolean, nowMs: number): Happening | null {
  switch (followed.type) {
    case "opened":
      return null;
    case "lost":
      return { type: "lost" };
    case "refused": {
      const { problem } = followed;
      if (lacksToken(problem)) return { type: "locked", why: withToken ? inWords(problem) : "" };
      return wantsToken(problem) ? { type: "denied", why: inWords(problem), nowMs } : { type: "lost" };
    }
    case "event": {
      const { name, data } = followed.event;
      if (name === "mesh") return { type: "mesh", mesh: JSON.parse(data) as Mesh, nowMs };
      // The token was revoked, or its time is over.
      return name === "ended" ? { type: "locked", why: (JSON.parse(data) as { reason: string }).reason } : null;
    }
  }
}

export function reduce(live: Live, happening: Happening): Live {
  if (happening.type === "lost") return live.lost ? live : { ...live, lost: true };
  if (happening.type === "locked") return { ...live, locked: happening.why, denied: null };
  // Nothing stays of what another token was shown.
  if (happening.type === "denied") return { ...initial(live.openedMs), receivedMs: happening.nowMs, denied: happening.why };
  const { mesh, nowMs } = happening;
  // A restarted control plane counts its events anew: what was numbered before cannot be compared with them.
  const restarted = live.mesh !== null && live.mesh.startedMs !== mesh.startedMs;
  return {
    ...live,
    mesh,
    receivedMs: nowMs,
    lost: false,
    locked: null,
    denied: null,
    clockOffsetMs: mesh.serverTimeMs - nowMs,
    events: mergeEvents(restarted ? [] : live.events, mesh.events),
    rates: appendRates(live.rates, mesh),
    edges: rememberEdges(live.edges, mesh),
  };
}

/** Since when what is shown is out of date, by the browser's clock; `null` while it is current. */
export function staleSince(live: Live, nowMs: number): number | null {
  // It answers, only not whoever asks.
  if (live.locked !== null || (live.denied !== null && !live.lost)) return null;
  const last = live.receivedMs ?? live.openedMs;
  if (live.lost) return last;
  return nowMs - last > STALE_AFTER_MS ? last : null;
}

/** What identifies an edge in the control plane's answer. */
export function edgeKey(edge: MeshEdge): string {
  return `${edge.from}→${edge.to}→${edge.backend ?? ""}`;
}

function mergeEvents(known: MeshEvent[], arrived: MeshEvent[]): MeshEvent[] {
  const byId = new Map<number, MeshEvent>();
  for (const event of known) byId.set(event.id, event);
  for (const event of arrived) byId.set(event.id, event);
  if (byId.size === known.length && arrived.every((event) => known.some((other) => other.id === event.id))) return known;
  return [...byId.values()].sort((a, b) => b.id - a.id).slice(0, EVENTS_KEPT);
}

function appendRates(known: Live["rates"], mesh: Mesh): Live["rates"] {
  const sent = new Map<string, number>();
  const served = new Map<string, number>();
  for (const edge of mesh.edges) {
    sent.set(edge.from, (sent.get(edge.from) ?? 0) + edge.rps);
    served.set(edge.to, (served.get(edge.to) ?? 0) + edge.rps);
    if (edge.backend && edge.backend !== edge.to) served.set(edge.backend, (served.get(edge.backend) ?? 0) + edge.rps);
  }
  const rates = new Map<string, readonly number[]>();
  for (const service of mesh.services) {
    const now = service.rps || served.get(service.name) || sent.get(service.name) || 0;
    rates.set(service.name, [...(known.get(service.name) ?? []), now].slice(-RATES_KEPT));
  }
  return rates;
}

function rememberEdges(known: Live["edges"], mesh: Mesh): Live["edges"] {
  const edges = new Map<string, RememberedEdge>();
  for (const [key, remembered] of known) {
    if (mesh.serverTimeMs - remembered.seenMs > EDGE_KEPT_MS) continue;
    const { refusals: _refusals, repeats: _repeats, ...edge } = remembered.edge;
    edges.set(key, {
      seenMs: remembered.seenMs,
      edge: { ...edge, rps: 0, successRate: null, p50Ms: null, p99Ms: null },
    });
  }
  for (const edge of mesh.edges) edges.set(edgeKey(edge), { edge, seenMs: mesh.serverTimeMs });
  return edges;
}
