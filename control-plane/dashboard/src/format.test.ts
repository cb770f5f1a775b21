// Numbers and times as shown: units always, nothing measured is never zero, and no failure is rounded away.
import { describe, expect, test } from "vitest";
import { byWeight, count, latency, percent, rate, relative, serviceName, span } from "./format";

describe("rate", () => {
  test.each([
    [null, "– rps"],
    [undefined, "– rps"],
    [Number.NaN, "– rps"],
    [0, "0 rps"],
    [0.001, "<0.01 rps"],
    [0.42, "0.42 rps"],
    [0.949, "0.95 rps"],
    [1, "1.0 rps"],
    [38.24, "38.2 rps"],
    [99.94, "99.9 rps"],
    [99.96, "100 rps"],
    [1234, "1234 rps"],
    [9_994, "9994 rps"],
    [12_345, "12.3k rps"],
    [250_000, "250k rps"],
    [1_500_000, "1.5M rps"],
  ])("%s is %s", (value, text) => expect(rate(value)).toBe(text));
});

describe("percent", () => {
  test.each([
    [null, "– %"],
    [1, "100 %"],
    [0, "0 %"],
    [0.5, "50.0 %"],
    [0.29, "29.0 %"],
    [0.9949, "99.4 %"],
    [0.9996, "99.96 %"],
    [0.99999, ">99.99 %"],
    [0.0004, "<0.1 %"],
  ])("%s is %s", (value, text) => expect(percent(value)).toBe(text));

  test("one failure in a million is not 100 %", () => expect(percent(0.999999)).not.toBe("100 %"));
});

describe("latency", () => {
  test.each([
    [null, "– ms"],
    [0, "0 ms"],
    [0.25, "250 µs"],
    [1.04, "1.0 ms"],
    [9.94, "9.9 ms"],
    [9.96, "10 ms"],
    [240, "240 ms"],
    [999.6, "1 s"],
    [1530, "1.53 s"],
    [15_300, "15.3 s"],
  ])("%s ms is %s", (value, text) => expect(latency(value)).toBe(text));
});

describe("times", () => {
  test.each([
    [0, "0 s"],
    [59_999, "59 s"],
    [61_000, "1 min 1 s"],
    [300_000, "5 min"],
    [3_600_000, "1 h"],
    [3_900_000, "1 h 5 min"],
    [90_000_000, "1 d 1 h"],
  ])("%s ms span %s", (value, text) => expect(span(value)).toBe(text));

  test("are relative to now, both ways", () => {
    expect(relative(1000, 1400)).toBe("just now");
    expect(relative(1000, 13_000)).toBe("12 s ago");
    expect(relative(3_601_000, 1000)).toBe("in 1 h");
  });
});

test("one is not many", () => {
  expect([count(0, "edge"), count(1, "edge"), count(2, "edge")]).toEqual(["0 edges", "1 edge", "2 edges"]);
});

test("a service's full name is taken apart at its last dot", () => {
  expect(serviceName("payments.demo")).toEqual({ name: "payments", namespace: "demo" });
  expect(serviceName("other")).toEqual({ name: "other", namespace: "" });
});

test.each([
  [[], "in no rule"],
  [[90], "of 90 % by weight"],
  [[33.333], "of 33.3 % by weight"],
  [[10, 100], "of 10 % or 100 % by weight, by rule"],
  [[0, 10, 100], "of 0 %, 10 % or 100 % by weight, by rule"],
])("weights %s are %s", (weights, words) => expect(byWeight(weights)).toBe(words));
