// What is seen of the map: fitting, zooming at a point, and finding one's way by arrow keys.
import { describe, expect, test } from "vitest";
import { LARGEST, SMALLEST, fit, held, isWhole, nearest, reveal, zoomAt } from "./viewport";

const frame = { width: 1000, height: 500 };

describe("fitting", () => {
  test("shows all in the middle, and enlarges nothing", () => {
    expect(fit({ width: 2000, height: 500 }, frame)).toEqual({ scale: 0.5, x: 0, y: 125 });
    expect(fit({ width: 100, height: 100 }, frame)).toEqual({ scale: 1, x: 450, y: 200 });
  });

  test("begins at the beginning where all of it could not be read", () => {
    const view = fit({ width: 1200, height: 4000 }, frame, 0.8);
    expect(view).toEqual({ scale: 0.8, x: 20, y: 0 });
    expect(isWhole(view, { width: 1200, height: 4000 }, frame)).toBe(false);
    expect(isWhole(fit({ width: 1200, height: 4000 }, frame), { width: 1200, height: 4000 }, frame)).toBe(true);
  });
});

test("zooming keeps the point under the pointer in its place, within bounds", () => {
  const before = { scale: 0.5, x: 40, y: -10 };
  const after = zoomAt(before, 2, 300, 200);
  const under = ({ scale, x, y }: typeof before) => [(300 - x) / scale, (200 - y) / scale];
  expect(under(after)).toEqual(under(before));
  expect([zoomAt(before, 1000, 0, 0).scale, zoomAt(before, 0, 0, 0).scale]).toEqual([LARGEST, SMALLEST]);
});

test("nobody can push the map out of sight", () => {
  const map = { width: 2000, height: 2000 };
  for (const far of [-1e6, 1e6]) {
    const { x, y } = held({ scale: 1, x: far, y: far }, map, frame);
    expect(x < frame.width && x + map.width > 0 && y < frame.height && y + map.height > 0).toBe(true);
  }
});

test("what is brought into sight moves the map as little as possible", () => {
  const view = { scale: 1, x: 0, y: 0 };
  const box = { width: 100, height: 40 };
  expect(reveal(view, { ...box, x: 500, y: 250 }, frame)).toEqual(view);
  expect(reveal(view, { ...box, x: 1200, y: 250 }, frame)).toEqual({ scale: 1, x: -278, y: 0 });
  expect(reveal(view, { ...box, x: 10, y: 600 }, frame)).toEqual({ scale: 1, x: 68, y: -148 });
});

test("arrow keys go to what is nearest in their direction", () => {
  const places = new Map([["a", { x: 0, y: 0 }], ["b", { x: 200, y: 10 }], ["c", { x: 150, y: 200 }], ["d", { x: 0, y: 40 }], ["e", { x: 400, y: 0 }]]);
  const all = () => true;
  expect(nearest(places, "a", "right", all)).toBe("b");
  expect(nearest(places, "a", "down", all)).toBe("d");
  expect(nearest(places, "a", "left", all)).toBeNull();
  expect(nearest(places, "e", "left", (id) => id !== "b")).toBe("a");
  expect(nearest(places, "gone", "up", all)).toBeNull();
});
