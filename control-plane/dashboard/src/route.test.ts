// Addresses: each page's own address leads back to it, and a wrong one is told.
import { expect, test } from "vitest";
import { type Route, href, parse, serviceHref } from "./route";

const routes: Exclude<Route, { page: "unknown" }>[] = [
  { page: "mesh", view: "map" },
  { page: "mesh", view: "table" },
  { page: "service", namespace: "demo", name: "payments-v1", minutes: 5 },
  { page: "service", namespace: "demo", name: "payments", minutes: 30 },
  { page: "workloads" },
  { page: "events" },
];

test.each(routes)("$page is found again by its address", (route) => expect(parse(href(route))).toEqual(route));

test("a service's full name leads to its page", () => {
  expect(serviceHref("payments.demo")).toBe("#/services/demo/payments");
});

test.each(["#/nowhere", "#/services/demo", "#/services/demo/payments/more", "#/workloads/x"])("%s is no page", (fragment) =>
  expect(parse(fragment).page).toBe("unknown"),
);

test("odd parameters fall back to the defaults", () => {
  expect(parse("")).toEqual({ page: "mesh", view: "map" });
  expect(parse("#/services/demo/web?minutes=7")).toMatchObject({ minutes: 5 });
  expect(parse("#/services/demo/%E0%A4%A")).toMatchObject({ page: "service", name: "%E0%A4%A" });
});
