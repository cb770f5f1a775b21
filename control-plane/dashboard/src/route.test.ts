// Addresses: what a page writes into its address is read from it again, and what nobody would write changes nothing.
import { describe, expect, test } from "vitest";
import {
  type Beginning, type MeshParameters, type Question, type Range, USUAL_RANGE, WHOLE_MESH, address, beginningOf, documentHref, edgeHref, editHref, explainHref, meshHref, meshParameters,
  newHref, parse, questionOf, rangeOf, rangeParameters, serviceHref, workloadHref, workloadOf,
} from "./route";

describe("the range", () => {
  const ranges: [Range, string][] = [
    [{ seconds: 300, until: null }, "#/services/demo/payments"],
    [{ seconds: 900, until: null }, "#/services/demo/payments?minutes=15"],
    [{ seconds: 95, until: 1_764_288_000_123 }, "#/services/demo/payments?seconds=95&until=1764288000123"],
    [{ seconds: 300, until: 1_764_288_000_123 }, "#/services/demo/payments?until=1764288000123"],
  ];
  test.each(ranges)("%j is found again at %s", (range, href) => {
    expect(serviceHref("payments.demo", range)).toBe(href);
    expect(rangeOf(parse(href))).toEqual(range);
  });

  test.each(["minutes=7", "seconds=9", "seconds=1801", "seconds=1e2.5", "until=0", "until=-5", "until=soon", "minutes=", ""])("%s is none: the usual one holds", (query) =>
    expect(rangeOf(parse(`#/?${query}`))).toEqual(USUAL_RANGE),
  );

  test("is asked of the API in seconds", () => {
    expect(rangeParameters({ seconds: 60, until: null })).toBe("seconds=60");
    expect(rangeParameters({ seconds: 95, until: 5 })).toBe("seconds=95&until=5");
  });
});

test.each<Partial<MeshParameters>>([
  {},
  { view: "table", search: "pay & go" },
  { namespace: "shop", onlyUnhealthy: true },
  { focus: "payments.demo", isolated: true },
])("what is shown of the mesh, %j, is found again by its address", (wanted) =>
  expect(meshParameters(parse(meshHref(wanted)))).toEqual({ ...WHOLE_MESH, ...wanted }),
);

test("nothing is isolated without a service that is looked at", () => {
  expect(meshParameters(parse("#/?isolated=1")).isolated).toBe(false);
});

test("a workload is marked on the page of its service", () => {
  expect(workloadHref("payments-1", "payments.demo")).toBe("#/services/demo/payments?workload=payments-1");
  const marked = serviceHref("payments.demo", { seconds: 900, until: null }, "payments-1");
  expect([workloadOf(parse(marked)), rangeOf(parse(marked)).seconds]).toEqual(["payments-1", 900]);
  expect(workloadOf(parse(serviceHref("payments.demo")))).toBe("");
});

test("services, edges and documents have addresses that can be read", () => {
  expect(serviceHref("payments.demo")).toBe("#/services/demo/payments");
  expect(edgeHref("web.demo", "cart.demo")).toBe("#/edges/web.demo/cart.demo");
  expect(documentHref("httproutes", "demo", "payments")).toBe("#/documents/httproutes/demo/payments");
  expect(parse("#/edges/web.demo/cart.demo?minutes=1").parts).toEqual(["edges", "web.demo", "cart.demo"]);
});

test.each<Partial<Beginning>>([{}, { kind: "TrafficPolicy" }, { kind: "HTTPRoute", service: "web.demo" }])("what a new document begins with, %j, is found again", (wanted) =>
  expect(beginningOf(parse(newHref(wanted)))).toEqual({ kind: "", service: "", ...wanted }),
);

test("the page on which a document is edited is named as in the API", () => {
  expect(editHref("httproutes", "demo", "payments")).toBe("#/edit/demo/httproutes/payments");
});

test("strange names survive, and what cannot be decoded is taken as it is", () => {
  expect(parse(address(["services", "a/b", "c?d#e"])).parts).toEqual(["services", "a/b", "c?d#e"]);
  expect(parse("#/services/%E0%A4%A").parts).toEqual(["services", "%E0%A4%A"]);
});

test.each<Partial<Question>>([{}, { from: "web.demo", to: "cart.demo", method: "POST", path: "/a?b=c", headers: "x: y\nz: w" }])("the question %j too", (question) =>
  expect(questionOf(parse(explainHref(question)))).toEqual({ from: "", to: "", method: "GET", path: "/", headers: "", ...question }),
);
