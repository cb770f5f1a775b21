// Every address leads to one page, and one that leads nowhere says so.
import { expect, test, vi } from "vitest";
import { documentHref, edgeHref, editHref, explainHref, meshHref, newHref, parse, serviceHref } from "../route";

// What pages are made of asks the browser for things; here only their addresses matter.
vi.stubGlobal("matchMedia", () => ({ matches: false }));
const { PAGES, pageAt } = await import("./table");

test.each([
  [meshHref(), "mesh", "Mesh"],
  [meshHref({ view: "table" }), "mesh", "Mesh"],
  ["", "mesh", "Mesh"],
  [serviceHref("payments.demo"), "service", "payments.demo"],
  [edgeHref("web.demo", "cart.demo"), "edge", "web.demo → cart.demo"],
  [documentHref("services", "demo", "web"), "document", "demo/web"],
  ["#/workloads", "workloads", "Workloads"],
  ["#/events", "events", "Events"],
  ["#/identities", "identities", "Identities"],
  ["#/control-plane", "control-plane", "Control plane"],
  [explainHref(), "explain", "Explain"],
  [newHref(), "edit", "Apply"],
  [newHref({ kind: "HTTPRoute", service: "web.demo" }), "edit", "Apply"],
  [editHref("services", "demo", "web"), "edit", "Edit demo/web"],
])("%s is the page %s", (href, id, title) => {
  const found = pageAt(parse(href));
  expect([found?.entry.id, found?.page.title]).toEqual([id, title]);
});

test.each(["#/nowhere", "#/services/demo", "#/services/demo/payments/more", "#/edges/web.demo", "#/workloads/x", "#/edit/demo", "#/edit/demo/services/web/x"])("%s is no page", (href) =>
  expect(pageAt(parse(href))).toBeNull(),
);

test("every page has a place in the navigation, its own or another's", () => {
  const labelled = PAGES.filter(({ label }) => label).map(({ id }) => id);
  for (const { id, label, under } of PAGES) expect(label !== undefined || labelled.includes(under ?? ""), id).toBe(true);
  expect(new Set(PAGES.map(({ id }) => id)).size).toBe(PAGES.length);
});
