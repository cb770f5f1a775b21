// The heatmap: cells where requests were, shades that show the rare ones too, an axis that holds all.
import { describe, expect, test } from "vitest";
import { SHADES, heatOf, marks, shadeOf } from "./heat";

const latencyBoundsMs = [0.064, 0.08, 0.096, 0.112, 0.128, 0.16];

describe("cells", () => {
  test("lie between the bounds of their buckets", () => {
    const heat = heatOf({ latency: [[[0, 3]], [], [[2, 100], [5, 1]]], latencyBoundsMs });
    expect(heat.cells.map(({ point, low, high, count }) => [point, low, high, count])).toEqual([
      [0, 0.032, 0.064, 3],
      [2, 0.08, 0.096, 100],
      [2, 0.128, 0.16, 1],
    ]);
    expect(heat.most).toBe(100);
    const [low, high] = heat.range;
    for (const cell of heat.cells) expect(cell.low >= low && cell.high <= high).toBe(true);
  });

  test("of nothing are none, with an axis all the same", () => {
    expect(heatOf({ latency: [[], []], latencyBoundsMs })).toEqual({ cells: [], range: [1, 100], most: 0 });
  });
});

test.each([[0, 10, 0], [1, 1, SHADES], [1, 1000, 1], [1000, 1000, SHADES], [32, 1000, 4]])("%s of at most %s has shade %s", (count, most, shade) =>
  expect(shadeOf(count, most)).toBe(shade),
);

test("marks are round, within the axis and not too many", () => {
  expect(marks(0.8, 60)).toEqual([1, 2, 5, 10, 20, 50]);
  expect(marks(0.05, 70_000)).toEqual([0.1, 1, 10, 100, 1000, 10_000]);
});
