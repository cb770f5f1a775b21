// Addresses of the dashboard's pages. They live in the fragment, so they can be shared and need nothing of the server.
import { useEffect, useState } from "preact/hooks";
import { type Watch, liveHref, watchOf } from "./pages/live/watch";

export type Route =
  | { page: "mesh"; view: "map" | "table" }
  | { page: "service"; namespace: string; name: string; minutes: number }
  | { page: "workloads" }
  | { page: "events" }
  | { page: "explain"; question: Question }
  | { page: "live"; watch: Watch }
  | { page: "unknown"; path: string };

/** A request to be explained, as it stands in the page's address. */
export interface Question {
  from: string;
  to: string;
  method: string;
  path: string;
  /** "name: value", one a line. */
  headers: string;
}

/** Spans a service page offers; the control plane keeps 30 minutes. */
export const SPANS_MINUTES = [1, 5, 15, 30] as const;
const DEFAULT_MINUTES = 5;

export function parse(fragment: string): Route {
  const [path = "", query = ""] = fragment.replace(/^#/, "").split("?", 2);
  const parameters = new URLSearchParams(query);
  const parts = path.split("/").filter((part) => part !== "").map(decode);
  const [page, namespace, name] = parts;
  if (page === undefined) return { page: "mesh", view: parameters.get("view") === "table" ? "table" : "map" };
  if (page === "services" && namespace && name && parts.length === 3) {
    const asked = Number(parameters.get("minutes"));
    const minutes = SPANS_MINUTES.find((span) => span === asked) ?? DEFAULT_MINUTES;
    return { page: "service", namespace, name, minutes };
  }
  if (page === "workloads" && parts.length === 1) return { page: "workloads" };
  if (page === "explain" && parts.length === 1) {
    const text = (name: string) => parameters.get(name) ?? "";
    const question = { from: text("from"), to: text("to"), method: text("method") || "GET", path: text("path") || "/", headers: text("headers") };
    return { page: "explain", question };
  }
  if (page === "live" && parts.length === 1) return { page: "live", watch: watchOf(parameters) };
  if (page === "events" && parts.length === 1) return { page: "events" };
  return { page: "unknown", path };
}

export function href(route: Exclude<Route, { page: "unknown" }>): string {
  switch (route.page) {
    case "mesh":
      return route.view === "table" ? "#/?view=table" : "#/";
    case "service": {
      const query = route.minutes === DEFAULT_MINUTES ? "" : `?minutes=${route.minutes}`;
      return `#/services/${encodeURIComponent(route.namespace)}/${encodeURIComponent(route.name)}${query}`;
    }
    case "workloads":
      return "#/workloads";
    case "events":
      return "#/events";
    case "live":
      return liveHref(route.watch);
    case "explain": {
      const usual: Partial<Question> = { method: "GET", path: "/" };
      const said = Object.entries(route.question).filter(([name, value]) => value !== "" && value !== usual[name as keyof Question]);
      const query = new URLSearchParams(said).toString();
      return query === "" ? "#/explain" : `#/explain?${query}`;
    }
  }
}

/** The page of the service with this full name ("payments.demo"). */
export function serviceHref(full: string): string {
  const dot = full.lastIndexOf(".");
  return href({
    page: "service",
    namespace: full.slice(dot + 1),
    name: full.slice(0, dot),
    minutes: DEFAULT_MINUTES,
  });
}

/** The page that the address names; follows the back button. */
export function useRoute(): Route {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const follow = () => setRoute(parse(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    // Typed by hand and not decodable: take it as it is; it will name no service.
    return part;
  }
}
