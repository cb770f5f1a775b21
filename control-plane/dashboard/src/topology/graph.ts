// The mesh as a graph to draw: services and lone workloads, the calls between them, and how routes split calls.
import { addRepeats } from "../activity";
import type { Figures, MeshEdge, MeshService, Repeats } from "../api/types";
import { serviceName } from "../format";
import { type Health, edgeHealth, healthWord, limitedShare, serviceHealth } from "../health";

/** Figures of several edges together. Their quantiles can't be added up: they are then an upper bound. */
export interface MergedFigures extends Figures {
  bound: boolean;
}

export interface GraphNode {
  id: string;
  name: string;
  namespace: string;
  kind: MeshService["kind"];
  instances: number;
  ready: number;
  figures: MergedFigures;
  /** What it sends itself, requests per second; what matters of one that nobody calls. */
  sendsRps: number;
  health: Health;
  /** What that is called, with the reason where figures don't tell it. */
  word: string;
}

export interface GraphEdge {
  id: string;
  from: string;
  to: string;
  /** A call from a source to the service it asked for, or the share of it that a route gave to one backend. */
  kind: "call" | "split";
  figures: MergedFigures;
  health: Health;
  /** Whether mutual TLS carries all of it, nothing of it, or a part. */
  mtls: "all" | "none" | "part" | "unsent";
  tlsVersion: string | null;
  /** Of a split: the share of the parent's requests, from 0 to 1; `null` without requests. */
  share: number | null;
  /** Refusals per second by reason, by the callers' sidecars and by those of the service. */
  refusals: Record<string, number>;
  refusalsByCallee: Record<string, number>;
  /** Over the last seconds. */
  repeats: Repeats;
}

export interface Graph {
  /** Both in an order that depends on names only. */
  nodes: GraphNode[];
  edges: GraphEdge[];
}

/**
 * Whether a name is one of a service or workload. Others ("unknown", for what was refused before its destination was
 * known; "other", for what is more than the control plane keeps apart) are nobody's: no page, no place on the map.
 */
export function isNode(name: string): boolean {
  return name.includes(".");
}

export function graphOf(listed: readonly MeshService[], all: readonly MeshEdge[]): Graph {
  const services = listed.filter((service) => isNode(service.name));
  const rows = all.filter((row) => isNode(row.from) && isNode(row.to));
  const calls = new Map<string, MeshEdge[]>();
  const splits = new Map<string, MeshEdge[]>();
  const into = new Map<string, MeshEdge[]>();
  const called = new Map<string, number>();
  const sends = new Map<string, number>();
  const names = new Set(services.map((service) => service.name));
  for (const row of rows) {
    const backend = backendOf(row);
    push(calls, pair(row.from, row.to), row);
    push(into, row.to, row);
    add(called, row.to, row.rps);
    add(sends, row.from, row.rps);
    names.add(row.from).add(row.to);
    if (backend !== null) {
      push(splits, pair(row.to, backend), row);
      push(into, backend, row);
      names.add(backend);
    }
  }

  const known = new Map(services.map((service) => [service.name, service]));
  const nodes = [...names].sort(byName).map((id) => nodeOf(id, known.get(id), into.get(id) ?? [], sends.get(id) ?? 0));
  const edges = [
    ...[...calls.values()].map((group) => edgeOf("call", group, null)),
    ...[...splits.values()].map((group) => {
      const total = called.get(group[0]!.to) ?? 0;
      return edgeOf("split", group, total > 0 ? sum(group) / total : null);
    }),
  ].sort((a, b) => byName(a.from, b.from) || byName(a.to, b.to));
  return { nodes, edges };
}

/** The same for graphs of the same shape, whatever their figures: what a layout depends on. */
export function signature(graph: Graph): string {
  return `${graph.nodes.map((node) => node.id).join(" ")}|${graph.edges.map((edge) => edge.id).join(" ")}`;
}

/** Edges together: rates add up, success is weighted by them, quantiles of several become the largest. */
export function merge(rows: readonly Figures[]): MergedFigures {
  const busy = rows.filter((row) => row.rps > 0);
  const [only] = busy;
  if (only === undefined) return { rps: 0, successRate: null, p50Ms: null, p99Ms: null, bound: false };
  if (busy.length === 1) {
    return { rps: only.rps, successRate: only.successRate, p50Ms: only.p50Ms, p99Ms: only.p99Ms, bound: false };
  }
  const rated = busy.filter((row) => row.successRate !== null);
  const ratedRps = sum(rated);
  return {
    rps: sum(busy),
    successRate: ratedRps > 0 ? rated.reduce((total, row) => total + row.rps * row.successRate!, 0) / ratedRps : null,
    p50Ms: largest(busy.map((row) => row.p50Ms)),
    p99Ms: largest(busy.map((row) => row.p99Ms)),
    bound: true,
  };
}

/** The backend that a route chose, if it is another service than the one called. */
export function backendOf(row: MeshEdge): string | null {
  return row.backend && row.backend !== row.to ? row.backend : null;
}

function nodeOf(id: string, service: MeshService | undefined, into: MeshEdge[], sendsRps: number): GraphNode {
  // A service that answers only through its backends, or as a backend, has no figures of its own.
  const figures: MergedFigures =
    service && service.rps > 0
      ? { rps: service.rps, successRate: service.successRate, p50Ms: service.p50Ms, p99Ms: service.p99Ms, bound: false }
      : merge(into);
  const instances = service?.instances ?? 0;
  const ready = service?.ready ?? 0;
  const refusals = service?.refusals ?? {};
  const health = serviceHealth({ ...figures, instances, ready, refusals });
  return {
    id,
    ...serviceName(id),
    kind: service?.kind ?? "unknown",
    instances,
    ready,
    figures,
    sendsRps,
    health,
    word: healthWord(health, limitedShare(figures.rps, refusals)),
  };
}

function edgeOf(kind: GraphEdge["kind"], rows: MeshEdge[], share: number | null): GraphEdge {
  const first = rows[0]!;
  const from = kind === "call" ? first.from : first.to;
  const to = kind === "call" ? first.to : backendOf(first)!;
  const figures = merge(rows);
  const sent = rows.filter((row) => row.mtls != null);
  const secured = sent.filter((row) => row.mtls).length;
  const refusals = together(rows.map((row) => row.refusals));
  const refusalsByCallee = together(rows.map((row) => row.refusalsByCallee));
  return {
    id: pair(from, to),
    from,
    to,
    kind,
    figures,
    health: edgeHealth({ ...figures, refusalsByCallee }),
    mtls: sent.length === 0 ? "unsent" : secured === sent.length ? "all" : secured === 0 ? "none" : "part",
    tlsVersion: rows.find((row) => row.mtls)?.tlsVersion ?? null,
    share,
    refusals,
    refusalsByCallee,
    repeats: addRepeats(rows.map((row) => row.repeats)),
  };
}

function together(all: readonly (Record<string, number> | undefined)[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const refusals of all) for (const [reason, rps] of Object.entries(refusals ?? {})) sums[reason] = (sums[reason] ?? 0) + rps;
  return sums;
}

/** By namespace, then name; "payments" comes before "payments-v1", which the full names' dots would turn round. */
function byName(a: string, b: string): number {
  const [one, other] = [serviceName(a), serviceName(b)];
  return order(one.namespace, other.namespace) || order(one.name, other.name);
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function pair(from: string, to: string): string {
  return `${from}→${to}`;
}

function push<T>(groups: Map<string, T[]>, key: string, item: T): void {
  const group = groups.get(key);
  if (group) group.push(item);
  else groups.set(key, [item]);
}

function add(totals: Map<string, number>, key: string, amount: number): void {
  totals.set(key, (totals.get(key) ?? 0) + amount);
}

function sum(rows: readonly Pick<Figures, "rps">[]): number {
  return rows.reduce((total, row) => total + row.rps, 0);
}

function largest(values: readonly (number | null)[]): number | null {
  const measured = values.filter((value): value is number => value !== null);
  return measured.length > 0 ? Math.max(...measured) : null;
}
