// An event stream that is kept open: by fetch, as the browser's own reader cannot carry a token.
import { type Problem, problemOf } from "../api/problem";
import { type ServerEvent, eventReader } from "./sse";

const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 10_000;
/** The control plane says something at least every 15 s. */
export const SILENCE_MS = 40_000;

export type Followed =
  | { type: "opened" }
  | { type: "event"; event: ServerEvent }
  /** It was not opened, and why. */
  | { type: "refused"; problem: Problem }
  /** It was cut, or nobody answers. */
  | { type: "lost"; why: string };

/** Told of what happens, in turn. `false`: another attempt would fare no better. */
export type Follower = (followed: Followed) => boolean | void;

/**
 * Opens the stream and keeps it open until `ended`, or until the follower has enough: one that was refused, cut or is silent is opened
 * anew, with growing and jittered pauses. Nothing is told after `ended`.
 */
export async function follow(url: string, headers: Record<string, string>, tell: Follower, ended: AbortSignal): Promise<void> {
  for (let attempts = 0; !ended.aborted; attempts += 1) {
    let again = true;
    await attempt(url, headers, ended, (followed) => {
      if (ended.aborted) return false;
      // Only what tells something counts as good.
      if (followed.type === "event") attempts = 0;
      if (tell(followed) === false) again = false;
      return again;
    });
    if (!again || ended.aborted) return;
    const pause = Math.min(RETRY_FIRST_MS * 2 ** attempts, RETRY_MOST_MS) * (0.5 + Math.random() / 2);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Reads one stream to its end. */
async function attempt(url: string, headers: Record<string, string>, ended: AbortSignal, tell: (followed: Followed) => boolean): Promise<void> {
  // It has an end of its own: a stream that is silent for too long is none.
  const over = new AbortController();
  let silence = setTimeout(() => over.abort(), SILENCE_MS);
  try {
    const signal = AbortSignal.any([ended, over.signal]);
    const response = await fetch(url, { headers: { accept: "text/event-stream", ...headers }, signal });
    if (!response.ok || response.body === null) {
      tell({ type: "refused", problem: await problemOf(response) });
      return;
    }
    tell({ type: "opened" });
    const read = eventReader();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      clearTimeout(silence);
      silence = setTimeout(() => over.abort(), SILENCE_MS);
      for (const event of read(value)) if (!tell({ type: "event", event })) return;
    }
    tell({ type: "lost", why: "The stream was cut." });
  } catch {
    tell({ type: "lost", why: "The control plane does not answer." });
  } finally {
    clearTimeout(silence);
    over.abort();
  }
}
