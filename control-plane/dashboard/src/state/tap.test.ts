// The list is bounded and in the order of the time that it shows, and stands still while it is paused.
import { describe, expect, test } from "vitest";
import type { TapEvent } from "../api/tap";
import { EMPTY, KEPT, type Tap, type TapHappening, leftOut, reduce } from "./tap";

const request = (path: string, timeMs = 0): TapEvent => ({
  timeMs, sidecar: "web-1", namespace: "demo", direction: "outbound", from: "web.demo", to: "payments.demo", mtls: true, method: "GET", path,
  failed: false, durationMs: 1, segments: [], attempts: 1,
});
const requests = (...paths: string[]): TapHappening => ({ type: "requests", requests: paths.map((path) => request(path)) });
const after = (...happenings: TapHappening[]): Tap => happenings.reduce(reduce, EMPTY);
const paths = (tap: Tap) => tap.rows.map((row) => row.request.path);

describe("live requests", () => {
  test("stand newest first", () => {
    const tap = after(requests("/1", "/2"), requests("/3"));
    expect(paths(tap)).toEqual(["/3", "/2", "/1"]);
    expect(tap.rows.map((row) => row.id)).toEqual([2, 1, 0]);
  });

  test("stand in the order in which they began, not ended", () => {
    const tap = after({ type: "requests", requests: [request("/2", 20), request("/3", 30)] }, { type: "requests", requests: [request("/1, slow", 10)] });
    expect(paths(tap)).toEqual(["/3", "/2", "/1, slow"]);
  });

  test("are the latest that came, however long ago they began: each has a row of its own", () => {
    const came = Array.from({ length: 3 * KEPT }, (_, index) => request(`/${index}`, (index * 7919) % 1000));
    const tap = [came.slice(0, KEPT + 7), came.slice(KEPT + 7)].map((part): TapHappening => ({ type: "requests", requests: part })).reduce(reduce, EMPTY);
    expect(new Set(tap.rows.map(({ id }) => id % KEPT)).size).toBe(KEPT);
    expect(Math.min(...tap.rows.map(({ id }) => id))).toBe(2 * KEPT);
  });

  test("are bounded, also what waits", () => {
    const many = Array.from({ length: KEPT + 20 }, (_, index) => `/${index}`);
    const tap = after(requests(...many), requests("/last"));
    expect(tap.rows).toHaveLength(KEPT);
    expect(paths(tap)[0]).toBe("/last");
    const resumed = after(requests("/first"), { type: "pause" }, requests(...many), { type: "resume" });
    expect(resumed.rows).toHaveLength(KEPT);
  });

  test("wait while it is paused, and are not lost", () => {
    const paused = after(requests("/1"), { type: "pause" }, requests("/2", "/3"));
    expect(paths(paused)).toEqual(["/1"]);
    expect(paused.heldBack).toBe(2);
    const resumed = reduce(paused, { type: "resume" });
    expect(paths(resumed)).toEqual(["/3", "/2", "/1"]);
    expect(resumed.heldBack).toBe(0);
  });

  test("stay when the stream is lost", () => {
    const lost = after({ type: "opened" }, requests("/1"), { type: "stopped", state: "lost", why: "gone" });
    expect(paths(lost)).toEqual(["/1"]);
    expect(lost.status).toBeNull();
    expect(reduce(lost, { type: "clear" }).rows).toEqual([]);
    expect(reduce(lost, { type: "anew" })).toEqual(EMPTY);
  });
});

test("what is left out is said with the reason", () => {
  const status = { listening: 1, waiting: 0, refused: 0, away: 0, notes: [] };
  expect(leftOut({ ...status, dropped: { limited: 0, overflowed: 0, unread: 0 } })).toBe("");
  expect(leftOut({ ...status, dropped: { limited: 3, overflowed: 0, unread: 2 } })).toBe(
    "Left out so far: 3 beyond the rate, 2 that this page did not take in time.",
  );
});
