// What is watched is found again by its address, and asked for as it stands there.
import { expect, test } from "vitest";
import { USUAL, type Watch, tapQuery, toService, watchOf, watchQuery } from "./watch";

const again = (watch: Watch) => {
  const said = Object.entries(watchQuery(watch)).filter((entry): entry is [string, string] => entry[1] !== null);
  return watchOf(new URLSearchParams(new URLSearchParams(said).toString()));
};

test.each([
  USUAL,
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

test("odd parameters fall back to what is usual", () => {
  expect(watchOf(new URLSearchParams("direction=up&seenBy=nobody&errors=yes&resource="))).toEqual(USUAL);
});
