// The line fills its place as soon as there is something to see, and is nothing before.
import { expect, test } from "vitest";
import { LEAST, sparkline } from "./sparkline";

test("few values are no line", () => {
  expect(sparkline([], 60, 16)).toBe("");
  expect(sparkline(Array(LEAST - 1).fill(3), 60, 16)).toBe("");
});

test.each([LEAST, 20, 60])("%i values go from end to end", (many) => {
  const points = sparkline(Array.from({ length: many }, (_, index) => index), 60, 16).split(" ");
  expect([points.length, points[0], points.at(-1)]).toEqual([many, "0.0,14.5", "60.0,1.5"]);
});

test("no traffic lies flat on the base", () => {
  expect(sparkline(Array(LEAST).fill(0), 40, 16)).toBe("0.0,14.5 10.0,14.5 20.0,14.5 30.0,14.5 40.0,14.5");
});
