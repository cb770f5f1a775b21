// An edge's figures in words, as the map and the table say them.
import { latency } from "../format";
import type { GraphEdge, MergedFigures } from "./graph";

/** p50 and p99 in one line; "≤" where they are bounds over several edges. */
export function quantiles(figures: MergedFigures): string {
  if (figures.p50Ms === null && figures.p99Ms === null) return "no requests";
  const bound = figures.bound ? "≤" : "";
  return `p50 ${bound}${latency(figures.p50Ms)} · p99 ${bound}${latency(figures.p99Ms)}`;
}

/** The same for the little room of a label: one unit where both have the same. */
export function briefQuantiles(figures: MergedFigures): string {
  if (figures.p50Ms === null && figures.p99Ms === null) return "no requests";
  const bound = figures.bound ? "≤" : " ";
  const [half, halfUnit] = latency(figures.p50Ms).split(" ");
  const [most, mostUnit] = latency(figures.p99Ms).split(" ");
  return `p50${bound}${half}${halfUnit === mostUnit ? "" : ` ${halfUnit}`} · p99${bound}${most} ${mostUnit}`;
}

export function transportInWords(edge: GraphEdge): string {
  if (edge.mtls === "unsent") return "nothing sent";
  if (edge.mtls === "all") return `mutual TLS${edge.tlsVersion ? ` (${edge.tlsVersion})` : ""}`;
  return edge.mtls === "none" ? "plaintext" : "partly plaintext";
}
