// What is watched is found again by its address, and asked for as it stands there.
import { expect, test } from "vitest";
import { USUAL, type Watch, conditions, tapQuery, toService, usualOf, watchOf, watchQuery } from "./watch";

const again = (watch: Watch) => {
  const said = Object.entries(watchQuery(watch)).filter((entry): entry is [string, string] => entry[1] !== null);
  return watchOf(new URLSearchParams(new URLSearchParams(said).toString()));
};

test.each([
  USUAL,
  usualOf("svc/payments.demo"),
  { ...usualOf("svc/payments.demo"), direction: "outbound" as const },
  toService("payments.demo"),
  { ...USUAL, direction: "both" as const, path: "/pay?&=", status: "5xx, 429", errors: true },
])("$resource is found again by its address", (watch) => expect(again(watch)).toEqual(watch));

test("what is usual is not in the address", () => {
  expect(Object.values(watchQuery(USUAL)).every((value) => value === null)).toBe(true);
});

test("the control plane is asked for what is there", () => {
  expect(tapQuery(USUAL)).toBe("resource=mesh&direction=outbound");
  expect(tapQuery(toService("payments.demo"))).toBe("resource=svc%2Fpayments.demo&seenBy=callers");
  expect(tapQuery({ ...USUAL, direction: "both", method: "get post", status: "5xx,429", path: "/pay", minDuration: "250ms", errors: true })).toBe(
    "resource=mesh&method=GET&method=POST&status=5xx&status=429&path=%2Fpay&minDuration=250ms&errors=true",
  );
});

test("a service's requests are all shown, as `pillion tap` shows them; the mesh's once each", () => {
  expect(tapQuery(watchOf(new URLSearchParams("resource=svc/payments.demo")))).toBe("resource=svc%2Fpayments.demo");
  expect(tapQuery(watchOf(new URLSearchParams("resource=mesh")))).toBe("resource=mesh&direction=outbound");
});

test("what rules requests out is named as the form names it", () => {
  expect(conditions(usualOf("svc/payments.demo"))).toEqual([]);
  expect(conditions(USUAL)).toEqual(["Direction sent"]);
  expect(conditions({ ...toService("payments.demo"), path: "/pay", errors: true })).toEqual([
    "Told by its callers' sidecars",
    "Path begins with /pay",
    "Only what failed",
  ]);
});

test("odd parameters fall back to what is usual", () => {
  expect(watchOf(new URLSearchParams("direction=up&seenBy=nobody&errors=yes&resource="))).toEqual(USUAL);
});
