// Requests are told many at once, and a tab that is not seen gathers no work for when it is.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { KEPT, type TapHappening } from "./tap";
import { inGulps } from "./tapping";

const frames = new Map<number, () => void>();
let asked = 0;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("requestAnimationFrame", (draw: () => void) => {
    frames.set(++asked, draw);
    return asked;
  });
  vi.stubGlobal("cancelAnimationFrame", (frame: number) => frames.delete(frame));
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  frames.clear();
});

function gulps() {
  const told: number[] = [];
  const { take, drop } = inGulps((happening: TapHappening) => {
    if (happening.type === "requests") told.push(happening.requests.length);
  });
  const hear = (count: number) => {
    for (let heard = 0; heard < count; heard++) take({ type: "event", event: { name: "request", data: "{}" } });
  };
  return { told, hear, drop };
}

test("requests are told when the page is drawn next", () => {
  const { told, hear } = gulps();
  hear(3);
  vi.runAllTimers();
  hear(2);
  expect(told).toEqual([]);
  for (const draw of frames.values()) draw();
  expect(told).toEqual([5]);
});

test("where no frame comes one at most is asked for, and none when nobody watches any more", () => {
  const { told, hear, drop } = gulps();
  for (let gulp = 0; gulp < 10; gulp++) {
    hear(KEPT - 1);
    vi.runAllTimers();
    expect(frames.size).toBe(1);
    hear(1);
    expect(frames.size).toBe(0);
  }
  expect(told).toEqual(Array.from({ length: 10 }, () => KEPT));
  hear(1);
  vi.runAllTimers();
  drop();
  expect(frames.size).toBe(0);
});
