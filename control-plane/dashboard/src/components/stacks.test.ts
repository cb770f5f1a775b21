// Stacks: layers lie on top of each other, and every error has a reason.
import { expect, test } from "vitest";
import { MOST_REASONS, errorLayers, tops } from "./stacks";

test("each layer begins where the one beneath ends", () => {
  const layer = (values: number[]) => ({ label: "", colour: "", values });
  expect(tops([layer([1, 0, 2]), layer([3, 1, 0]), layer([0, -1, 5])])).toEqual([[1, 0, 2], [4, 1, 2], [4, 1, 7]]);
  expect(tops([])).toEqual([]);
});

test("what failed without a refusal is the application's", () => {
  expect(errorLayers({ failed: [5, 0, 1], refusals: { "no-endpoints": [1, 0, 1] }, refusalsByCallee: {} })).toEqual([
    { label: "application", values: [4, 0, 0] },
    { label: "no-endpoints", values: [1, 0, 1] },
  ]);
});

test("a refusal for the caller's sake is no failure of the application's", () => {
  expect(errorLayers({ failed: [1, 1], refusals: {}, refusalsByCallee: { "rate-limited": [8, 8] } })).toEqual([
    { label: "rate-limited (there)", values: [8, 8] },
    { label: "application", values: [1, 1] },
  ]);
});

test("without errors there is nothing, whatever was rounded", () => {
  expect(errorLayers({ failed: [0.333, 0], refusals: { reset: [0.334, 0] }, refusalsByCallee: {} }).map(({ label }) => label)).toEqual(["reset"]);
  expect(errorLayers({ failed: [0, 0], refusals: {}, refusalsByCallee: {} })).toEqual([]);
});

test("many reasons stay few colours, and none is lost", () => {
  const refusals = Object.fromEntries(Array.from({ length: 8 }, (_, index) => [`reason-${index}`, [index + 1]]));
  const layers = errorLayers({ failed: [36], refusals, refusalsByCallee: {} });
  expect(layers).toHaveLength(MOST_REASONS);
  expect(layers.at(-1)).toEqual({ label: "4 others", values: [10] });
  expect(layers.reduce((sum, { values }) => sum + values[0]!, 0)).toBe(36);
});
