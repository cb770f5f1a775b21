// What is nested is told part by part, with the way to each.
import { expect, test } from "vitest";
import { leaves } from "./leaves";

test.each([
  ["x", "1s", [["x", "1s"]]],
  ["x", { b: { c: 2 } }, [["x.b.c", "2"]]],
  ["x", [], [["x", "[]"]]],
  ["x", {}, [["x", "{}"]]],
  ["x", null, [["x", "null"]]],
  ["retry.on", ["gatewayError", "reset"], [["retry.on", "gatewayError, reset"]]],
  [
    "faults",
    ["old: over", { abort: { percent: 5, status: 503 }, only: [1, true] }],
    [["faults[0]", "old: over"], ["faults[1].abort.percent", "5"], ["faults[1].abort.status", "503"], ["faults[1].only", "1, true"]],
  ],
] as [string, unknown, [string, string][]][])("of %s %j", (at, value, told) => expect(leaves(at, value)).toEqual(told));
