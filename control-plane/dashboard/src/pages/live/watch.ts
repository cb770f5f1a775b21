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

/** Nothing is left out that `pillion tap` shows; only in the whole mesh each request would be told by both its ends. */
export function usualOf(resource: string): Watch {
  return { ...USUAL, resource, direction: resource === USUAL.resource ? USUAL.direction : "both" };
}

/** The page that shows what is sent to a service, told by its callers. */
export const toService = (full: string): Watch => ({ ...usualOf(`svc/${full}`), seenBy: "callers" });

const TEXTS = ["resource", "method", "path", "status", "from", "to", "minDuration"] as const;

export function watchOf(query: URLSearchParams): Watch {
  const one = <T extends string>(name: string, known: readonly T[], usual: T): T => known.find((word) => word === query.get(name)) ?? usual;
  const watch = usualOf(query.get("resource")?.trim() || USUAL.resource);
  for (const name of TEXTS) watch[name] = query.get(name)?.trim() || watch[name];
  watch.seenBy = one("seenBy", ["workloads", "callers"], USUAL.seenBy);
  watch.direction = one("direction", ["both", "inbound", "outbound"], watch.direction);
  watch.errors = query.get("errors") === "true";
  return watch;
}

/** What is not as usual; the rest is left out of the address. */
export function watchQuery(watch: Watch): Record<string, string | null> {
  const usual = { ...usualOf(watch.resource), resource: USUAL.resource };
  const said = Object.entries(watch).map(([name, value]) => [name, value === usual[name as keyof Watch] ? null : String(value)] as const);
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

/** What a request must be to be shown, each with its name in the form; empty where all are. */
export function conditions(watch: Watch): string[] {
  const { seenBy, direction, errors } = watch;
  const texts = [["Method", "method"], ["Path begins with", "path"], ["Status", "status"], ["From", "from"], ["To", "to"], ["Took at least", "minDuration"]] as const;
  return [
    seenBy === "callers" ? "Told by its callers' sidecars" : direction !== "both" && `Direction ${direction === "inbound" ? "received" : "sent"}`,
    ...texts.map(([label, name]) => watch[name] !== "" && `${label} ${watch[name]}`),
    errors && "Only what failed",
  ].filter((part) => part !== false);
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
