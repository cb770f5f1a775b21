// Addresses of the dashboard's pages. They live in the fragment, so they can be shared and need nothing of the server. Which
// page an address means is in pages/table.tsx; what stands in addresses is read and written here.
import { useEffect, useState } from "preact/hooks";
import { serviceName } from "./format";

/** An address taken apart: "#/services/demo/web?minutes=15". */
export interface Address {
  parts: string[];
  query: URLSearchParams;
}

export function parse(fragment: string): Address {
  const [path = "", query = ""] = fragment.replace(/^#/, "").split("?", 2);
  return { parts: path.split("/").filter((part) => part !== "").map(decode), query: new URLSearchParams(query) };
}

/** Put together again; what is `null` or empty is left out. */
export function address(parts: readonly string[], query: Record<string, string | null> = {}): string {
  const said = Object.entries(query).filter((entry): entry is [string, string] => entry[1] !== null && entry[1] !== "");
  const text = new URLSearchParams(said).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text === "" ? "" : `?${text}`}`;
}

// ---- The time that is shown, the same on all pages ------------------------------------------------------------------------

/** What part of the kept half hour is shown. */
export interface Range {
  seconds: number;
  /** Where it ends, milliseconds by the control plane's clock; `null`: now, and it goes on. */
  until: number | null;
}

/** Spans that are offered; the control plane keeps 30 minutes. */
export const SPANS_MINUTES = [1, 5, 15, 30] as const;
export const KEPT_SECONDS = 1800;
export const LEAST_SECONDS = 10;
export const USUAL_RANGE: Range = { seconds: 300, until: null };

export function rangeOf({ query }: Address): Range {
  const whole = (name: string, least: number, most: number) => {
    const value = Number(query.get(name));
    return Number.isInteger(value) && value >= least && value <= most ? value : null;
  };
  const minutes = SPANS_MINUTES.find((span) => String(span) === query.get("minutes"));
  const seconds = minutes === undefined ? whole("seconds", LEAST_SECONDS, KEPT_SECONDS) : minutes * 60;
  return { seconds: seconds ?? USUAL_RANGE.seconds, until: whole("until", 1, Number.MAX_SAFE_INTEGER) };
}

export function rangeQuery({ seconds, until }: Range): Record<string, string | null> {
  const minutes = SPANS_MINUTES.find((span) => span * 60 === seconds);
  return {
    minutes: minutes === undefined || seconds === USUAL_RANGE.seconds ? null : String(minutes),
    seconds: minutes === undefined ? String(seconds) : null,
    until: until === null ? null : String(until),
  };
}

/** As the API is asked for it. */
export function rangeParameters({ seconds, until }: Range): string {
  return `seconds=${seconds}${until === null ? "" : `&until=${until}`}`;
}

/** The range of the page that is shown: links from it lead to the same time. */
let carried: Range = USUAL_RANGE;

// ---- Each page's own ------------------------------------------------------------------------------------------------------

/** What of the mesh is shown, and how. */
export interface MeshParameters {
  view: "map" | "table";
  /** What is searched for; the rest is dimmed. */
  search: string;
  /** Only these services; empty: all namespaces. */
  namespace: string;
  onlyUnhealthy: boolean;
  /** The service that is looked at; its calls stand out. */
  focus: string;
  /** Nothing but it, its callers and whom it calls. */
  isolated: boolean;
}

export const WHOLE_MESH: MeshParameters = { view: "map", search: "", namespace: "", onlyUnhealthy: false, focus: "", isolated: false };

export function meshParameters({ query }: Address): MeshParameters {
  const text = (name: string) => query.get(name) ?? "";
  const focus = text("focus");
  return {
    view: text("view") === "table" ? "table" : "map",
    search: text("search"),
    namespace: text("namespace"),
    onlyUnhealthy: query.has("unhealthy"),
    focus,
    isolated: focus !== "" && query.has("isolated"),
  };
}

export function meshHref(wanted: Partial<MeshParameters> = {}, range: Range = carried): string {
  const { view, search, namespace, onlyUnhealthy, focus, isolated } = { ...WHOLE_MESH, ...wanted };
  return address([], {
    view: view === "table" ? "table" : null,
    search,
    namespace,
    unhealthy: onlyUnhealthy ? "1" : null,
    focus,
    isolated: isolated && focus !== "" ? "1" : null,
    ...rangeQuery(range),
  });
}

/** The page of the service with this full name ("payments.demo"). */
export function serviceHref(full: string, range: Range = carried, workload = ""): string {
  const { name, namespace } = serviceName(full);
  return address(["services", namespace, name], { workload, ...rangeQuery(range) });
}

/** The same, with one of its workloads marked: a workload has no page of its own, and may serve several services. */
export function workloadHref(workload: string, service: string): string {
  return serviceHref(service, carried, workload);
}

/** The marked one; empty: none. */
export function workloadOf({ query }: Address): string {
  return query.get("workload") ?? "";
}

/** The page of all that goes from one to another. */
export function edgeHref(from: string, to: string, range: Range = carried): string {
  return address(["edges", from, to], rangeQuery(range));
}

/** The page of a document; `plural` as in the API. */
export function documentHref(plural: string, namespace: string, name: string): string {
  return address(["documents", plural, namespace, name]);
}

/** The page on which a document is edited. */
export function editHref(plural: string, namespace: string, name: string): string {
  return address(["edit", namespace, plural, name]);
}

/** What a new document begins with. */
export interface Beginning {
  kind: string;
  /** The service that it is for, by its full name. */
  service: string;
}

export function beginningOf({ query }: Address): Beginning {
  return { kind: query.get("kind") ?? "", service: query.get("service") ?? "" };
}

/** The page on which new documents are written. */
export function newHref({ kind = "", service = "" }: Partial<Beginning> = {}): string {
  return address(["edit"], { kind, service });
}

/** A request to be explained, as it stands in the page's address. */
export interface Question {
  from: string;
  to: string;
  method: string;
  path: string;
  /** "name: value", one a line. */
  headers: string;
}

export function questionOf({ query }: Address): Question {
  const text = (name: string) => query.get(name) ?? "";
  return { from: text("from"), to: text("to"), method: text("method") || "GET", path: text("path") || "/", headers: text("headers") };
}

export function explainHref({ from = "", to = "", method = "GET", path = "/", headers = "" }: Partial<Question> = {}): string {
  return address(["explain"], { from, to, method: method === "GET" ? null : method, path: path === "/" ? null : path, headers });
}

// ---- The browser's own ----------------------------------------------------------------------------------------------------

/** The present address; follows links and the back button. */
export function useAddress(): Address {
  const [now, setNow] = useState(() => here());
  useEffect(() => {
    const follow = () => setNow(here());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return now;
}

function here(): Address {
  const found = parse(location.hash);
  carried = rangeOf(found);
  return found;
}

/** Goes there; `quietly`, without a step for the back button: for what changes with each key. */
export function go(href: string, quietly = false): void {
  if (quietly) location.replace(href);
  else location.hash = href;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    // Typed by hand and not decodable: take it as it is; it will name no service.
    return part;
  }
}
