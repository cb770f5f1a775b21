// What is to be said of certificates and of who calls without one: pure, with the control plane's time as an argument.
import type { MeshEdge, MeshService, Workload } from "./api/types";
import { count, span } from "./format";
import type { Health } from "./health";
import { isNode } from "./topology/graph";

const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;
/** By so much the authority dates certificates back, for peers whose clocks are behind. */
export const BACKDATED_MS = 120_000;

/** A leaf of weeks is warned of by days; a short one, which is renewed at half of its life, by the part of its life that is left. */
export function leafHealth(leftMs: number, lifeMs: number): Health {
  if (leftMs <= 0) return "failing";
  const short = lifeMs < 21 * DAY_MS;
  if (leftMs <= (short ? lifeMs / 10 : DAY_MS)) return "failing";
  return leftMs <= (short ? lifeMs / 3 : 7 * DAY_MS) ? "degraded" : "good";
}

/** People change roots, who need time for it; as `pillion check` judges them. */
export function anchorHealth(leftMs: number): Health {
  if (leftMs <= 7 * DAY_MS) return "failing";
  return leftMs <= 30 * DAY_MS ? "degraded" : "good";
}

/** Hours do not matter while there are months. */
export function remaining(leftMs: number): string {
  return leftMs < 60 * DAY_MS ? span(leftMs) : count(Math.floor(leftMs / DAY_MS), "day");
}

/** When a workload's certificate was issued and for how long; `usualMs` where its sidecar does not say when it began. */
export function lifeOf(workload: Workload, usualMs: number): { issuedMs: number | null; lifeMs: number } {
  const { certificateNotBeforeMs: notBefore, certificateNotAfterMs: notAfter } = workload;
  if (notBefore == null || notAfter == null) return { issuedMs: null, lifeMs: usualMs };
  return { issuedMs: notBefore + BACKDATED_MS, lifeMs: notAfter - notBefore - BACKDATED_MS };
}

/** Those that end first come first; those that have reported none come last. */
export function soonestFirst(workloads: readonly Workload[]): Workload[] {
  const end = ({ certificateNotAfterMs }: Workload) => certificateNotAfterMs ?? Number.POSITIVE_INFINITY;
  const name = ({ namespace, workload }: Workload) => `${namespace}/${workload}`;
  const order = (a: number, b: number) => (a === b ? 0 : a < b ? -1 : 1);
  return [...workloads].sort((a, b) => order(end(a), end(b)) || name(a).localeCompare(name(b)));
}

/** An edge that is not encrypted all the way, and what to make of it. */
export interface OpenEdge {
  from: string;
  to: string;
  rps: number;
  /** "leaves": to something that has no sidecar; the others come to one in plaintext. */
  why: "no-sidecar" | "past-sidecar" | "leaves";
}

/** Requests by backend are one edge here. Plaintext that comes to a sidecar stands first. */
export function openEdges(services: readonly MeshService[], edges: readonly MeshEdge[]): OpenEdge[] {
  const meshed = new Set(services.filter(({ inMesh }) => inMesh).map(({ name }) => name));
  const found = new Map<string, OpenEdge>();
  for (const { from, to, backend, mtls, rps } of edges) {
    // What cannot be resolved, or was refused before anybody was chosen, was sent to nobody.
    if (mtls !== false || !isNode(to)) continue;
    const key = `${from} ${to}`;
    const known = found.get(key);
    const served = meshed.has(to) || (backend != null && meshed.has(backend));
    const why = !served ? "leaves" : meshed.has(from) ? "past-sidecar" : "no-sidecar";
    if (known === undefined) found.set(key, { from, to, rps, why });
    else found.set(key, { ...known, rps: known.rps + rps, why: known.why === "leaves" ? why : known.why });
  }
  const rank = ({ why }: OpenEdge) => (why === "leaves" ? 1 : 0);
  return [...found.values()].sort((a, b) => rank(a) - rank(b) || a.from.localeCompare(b.from) || a.to.localeCompare(b.to));
}

/** Enough of a fingerprint to tell two apart: "3fa2 91bc 07de 5512". */
export function short(fingerprint: string): string {
  return fingerprint.slice(0, 16).replace(/(.{4})(?=.)/g, "$1 ");
}
