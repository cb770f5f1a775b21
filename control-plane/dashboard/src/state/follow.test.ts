// A stream is opened anew when it ends, and not a moment longer than somebody wants it.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Followed, SILENCE_MS, follow } from "./follow";

/** What the server does with each attempt; the last goes for all that follow. */
let answers: ((signal: AbortSignal) => Promise<Response>)[];
let asked: { at: number; headers: Record<string, string> }[];

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(1);
  asked = [];
  vi.stubGlobal("fetch", (_: string, { headers, signal }: { headers: Record<string, string>; signal: AbortSignal }) => {
    asked.push({ at: Date.now(), headers });
    const answer = answers.length > 1 ? answers.shift()! : answers[0]!;
    return answer(signal);
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

/** Says this, and then goes on or ends. */
const says = (text: string, ends: boolean) => async (signal: AbortSignal) =>
  new Response(
    new ReadableStream({
      start: (body) => {
        if (text !== "") body.enqueue(new TextEncoder().encode(text));
        if (ends) body.close();
        else signal.addEventListener("abort", () => body.error(signal.reason));
      },
    }),
  );
const refuses = (status: number) => async () => new Response(JSON.stringify({ type: "urn:pillion:problem:x" }), { status });
const ONE = "event: mesh\ndata: 1\n\n";

function following(tell: (followed: Followed) => boolean | void = () => {}) {
  const ended = new AbortController();
  const told: string[] = [];
  const start = Date.now();
  const hear = (followed: Followed) => {
    told.push(followed.type === "event" ? followed.event.name : followed.type);
    return tell(followed);
  };
  const over = follow("stream", { authorization: "Bearer t" }, hear, ended.signal);
  return { ended, told, over, attempts: () => asked.map(({ at }) => at - start) };
}

test("pauses grow until something is told again", async () => {
  answers = [refuses(503), refuses(503), refuses(503), says(ONE, true), refuses(503)];
  const { told, attempts } = following();
  await vi.advanceTimersByTimeAsync(4_600);
  expect(attempts()).toEqual([0, 500, 1_500, 3_500, 4_000]);
  expect(told).toEqual(["refused", "refused", "refused", "opened", "mesh", "lost", "refused"]);
  expect(asked[4]!.headers).toEqual({ accept: "text/event-stream", authorization: "Bearer t" });
});

test("one that hangs is opened anew", async () => {
  answers = [says(ONE, false)];
  const { told, attempts } = following();
  await vi.advanceTimersByTimeAsync(SILENCE_MS + 600);
  expect(attempts()).toEqual([0, SILENCE_MS + 500]);
  expect(told).toEqual(["opened", "mesh", "lost", "opened", "mesh"]);
});

test("whoever ends it ends the present attempt, and hears nothing more", async () => {
  let heard = true;
  const hang = says(ONE, false);
  answers = [
    (signal) => {
      signal.addEventListener("abort", () => (heard = false));
      return hang(signal);
    },
  ];
  const { ended, told, over } = following();
  await vi.advanceTimersByTimeAsync(1_000);
  ended.abort();
  expect(heard).toBe(false);
  await over;
  await vi.advanceTimersByTimeAsync(60_000);
  expect([told, asked.length]).toEqual([["opened", "mesh"], 1]);
});

test("who is told enough is asked no more", async () => {
  answers = [says(ONE + ONE, false)];
  const { told, over } = following(({ type }) => type !== "event");
  await over;
  expect([told, asked.length]).toEqual([["opened", "mesh"], 1]);
});
