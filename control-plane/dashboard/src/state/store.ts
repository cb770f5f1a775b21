// The one live state of the page: an event stream feeds it, components read it.
import { useEffect, useState } from "preact/hooks";
import { inWords, problemOf, wantsToken } from "../api/problem";
import type { Mesh } from "../api/types";
import { type Happening, type Live, initial, reduce } from "./live";
import { eventReader } from "./sse";
import { authorization, onToken } from "./token";

let live: Live = initial(Date.now());
const listeners = new Set<(live: Live) => void>();

function happen(happening: Happening): void {
  const next = reduce(live, happening);
  if (next === live) return;
  live = next;
  for (const listener of listeners) listener(live);
}

/** The live state; the component is drawn again with each change. */
export function useLive(): Live {
  const [value, setValue] = useState(live);
  useEffect(() => {
    setValue(live);
    listeners.add(setValue);
    return () => void listeners.delete(setValue);
  }, []);
  return value;
}

const watchers = new Set<(nowMs: number) => void>();

function tick(): void {
  const nowMs = Date.now();
  for (const watcher of watchers) watcher(nowMs);
}

/** The browser's clock, each second; all that show a time change together. */
export function useNow(): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    watchers.add(setNow);
    return () => void watchers.delete(setNow);
  }, []);
  return now;
}

const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 10_000;
/** The control plane says something each second. */
const SILENCE_MS = 15_000;

/**
 * Starts the clock, opens the event stream and keeps it open: one that was refused, cut or hangs is opened anew, with growing and
 * jittered pauses, and at once with another token.
 */
export function connect(url: string): void {
  setInterval(tick, 1000);
  let wake = () => {};
  onToken(() => wake());
  const keep = async () => {
    for (let attempts = 0; ; attempts += 1) {
      await follow(url, () => (attempts = 0));
      const pause = Math.min(RETRY_FIRST_MS * 2 ** attempts, RETRY_MOST_MS) * (0.5 + Math.random() / 2);
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, pause);
      });
    }
  };
  void keep();
}

/** Reads the stream to its end. */
async function follow(url: string, heard: () => void): Promise<void> {
  const attempt = new AbortController();
  let silence = setTimeout(() => attempt.abort(), SILENCE_MS);
  try {
    const response = await fetch(url, { headers: { accept: "text/event-stream", ...authorization() }, signal: attempt.signal });
    if (!response.ok || response.body === null) {
      const problem = await problemOf(response);
      return happen(wantsToken(problem) ? { type: "locked", why: "authorization" in authorization() ? inWords(problem) : "" } : { type: "lost" });
    }
    const read = eventReader();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      for (const { name, data } of read(value)) {
        if (name !== "mesh") continue;
        clearTimeout(silence);
        silence = setTimeout(() => attempt.abort(), SILENCE_MS);
        heard();
        happen({ type: "mesh", mesh: JSON.parse(data) as Mesh, nowMs: Date.now() });
      }
    }
  } catch {
    // It does not answer, was cut off, or hangs.
  } finally {
    clearTimeout(silence);
    attempt.abort();
  }
  happen({ type: "lost" });
}
