// What is watched, as it stands in the page's address and as the control plane is asked for it.

export interface Watch {
  /** "svc/payments.demo", "workload/web-1", "ns/demo" or "mesh". */
  resource: string;
  seenBy: "workloads" | "callers";
  direction: "both" | "inbound" | "outbound";
  method: string;
  path: string;
  /** Several, by commas. */
  status: string;
  from: string;
  to: string;
  minDuration: string;
  errors: boolean;
}

/** All there is, each request once: told by its caller's sidecar. */
export const USUAL: Watch = {
  resource: "mesh",
  seenBy: "workloads",
  direction: "outbound",
  method: "",
  path: "",
  status: "",
  from: "",
  to: "",
  minDuration: "",
  errors: false,
};

/** The page that shows what is sent to a service, told by its callers. */
export const toService = (full: string): Watch => ({ ...USUAL, resource: `svc/${full}`, seenBy: "callers" });

const TEXTS = ["resource", "method", "path", "status", "from", "to", "minDuration"] as const;

export function watchOf(query: URLSearchParams): Watch {
  const one = <T extends string>(name: string, known: readonly T[], usual: T): T => known.find((word) => word === query.get(name)) ?? usual;
  const watch = { ...USUAL };
  for (const name of TEXTS) watch[name] = query.get(name)?.trim() || USUAL[name];
  watch.seenBy = one("seenBy", ["workloads", "callers"], USUAL.seenBy);
  watch.direction = one("direction", ["both", "inbound", "outbound"], USUAL.direction);
  watch.errors = query.get("errors") === "true";
  return watch;
}

/** What is not as usual; the rest is left out of the address. */
export function watchQuery(watch: Watch): Record<string, string | null> {
  const said = Object.entries(watch).map(([name, value]) => [name, value === USUAL[name as keyof Watch] ? null : String(value)] as const);
  return Object.fromEntries(said);
}

/** As the API is asked. */
export function tapQuery(watch: Watch): string {
  const asked = new URLSearchParams({ resource: watch.resource });
  const callers = watch.seenBy === "callers";
  if (callers) asked.set("seenBy", "callers");
  // Callers only send.
  else if (watch.direction !== "both") asked.set("direction", watch.direction);
  for (const method of list(watch.method)) asked.append("method", method.toUpperCase());
  for (const status of list(watch.status)) asked.append("status", status);
  for (const name of ["path", "from", "to", "minDuration"] as const) if (watch[name] !== "") asked.set(name, watch[name]);
  if (watch.errors) asked.set("errors", "true");
  return asked.toString();
}

function list(text: string): string[] {
  return text.split(/[\s,]+/).filter((part) => part !== "");
}

/** The page's address. */
export function liveHref(watch: Watch): string {
  const said = Object.entries(watchQuery(watch)).filter((entry): entry is [string, string] => entry[1] !== null);
  const query = new URLSearchParams(said).toString();
  return query === "" ? "#/live" : `#/live?${query}`;
}
