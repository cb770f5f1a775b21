// The one live state of the page: an event stream feeds it, components read it.
import { useEffect, useState } from "preact/hooks";
import { type Followed, follow } from "./follow";
import { type Happening, type Live, happeningOf, initial, reduce } from "./live";
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

let reopen = () => {};

/**
 * Starts the clock, opens the event stream and keeps it open. It is opened anew with another token, and without one: what the last one
 * was shown ends with it.
 */
export function connect(url: string): void {
  setInterval(tick, 1000);
  let ended = new AbortController();
  reopen = () => {
    ended.abort();
    ended = new AbortController();
    const headers = authorization();
    const tell = (followed: Followed) => {
      const happening = happeningOf(followed, "authorization" in headers, Date.now());
      if (happening !== null) happen(happening);
    };
    void follow(url, headers, tell, ended.signal);
  };
  onToken(reopen);
  reopen();
}

/** Some other answer says that the token does not hold: the event stream, opened anew, tells what becomes of the page. */
export function doubtToken(): void {
  reopen();
}
