// Points of a series: dots where no line can be, and a table that is never long.
import { expect, test } from "vitest";
import { isolated, tableRows } from "./figures";

test.each([
  [[], []],
  [[1], [0]],
  [[1, 2], []],
  [[null, 1, null, 2, 3, null, 0], [1, 6]],
  [[null, null], []],
])("of %j, those between two gaps are %j", (values, alone) => expect(isolated(values)).toEqual(alone));

test("the table lists the newest first, and at most thirty", () => {
  expect(tableRows([10, 20, 30])).toEqual([2, 1, 0]);
  expect(tableRows([])).toEqual([]);
  const rows = tableRows(Array.from({ length: 180 }, (_, index) => index));
  expect(rows).toHaveLength(30);
  expect([rows[0], rows[1]]).toEqual([179, 173]);
});
