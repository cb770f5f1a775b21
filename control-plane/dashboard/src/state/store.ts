// The one live state of the page: an event stream feeds it, components read it.
import { useEffect, useState } from "preact/hooks";
import type { Mesh } from "../api/types";
import { type Happening, type Live, initial, reduce } from "./live";

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

/**
 * Starts the clock, opens the event stream and keeps it open. A browser gives up a stream that was answered with an error status, and one
 * that hangs is never noticed, so both are opened anew here, with growing and jittered pauses.
 */
export function connect(url: string): void {
  setInterval(tick, 1000);
  let attempts = 0;
  let source: EventSource;
  let silence: ReturnType<typeof setTimeout>;

  const retry = () => {
    source.close();
    clearTimeout(silence);
    happen({ type: "lost" });
    const pause = Math.min(RETRY_FIRST_MS * 2 ** attempts, RETRY_MOST_MS);
    attempts += 1;
    setTimeout(open, pause * (0.5 + Math.random() / 2));
  };
  const listen = () => {
    clearTimeout(silence);
    silence = setTimeout(retry, 15_000);
  };
  const open = () => {
    source = new EventSource(url);
    listen();
    source.addEventListener("mesh", (message: MessageEvent<string>) => {
      attempts = 0;
      listen();
      let mesh: Mesh;
      try {
        mesh = JSON.parse(message.data) as Mesh;
      } catch {
        // Cut off in the middle: the next message, a second later, is whole or the stream has ended.
        return;
      }
      happen({ type: "mesh", mesh, nowMs: Date.now() });
    });
    source.addEventListener("error", retry);
  };
  open();
}
